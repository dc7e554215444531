/** The verifier over TCP: real TLS clients, the same table of requests as on the unix socket, and who may connect at all. */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { methodsOf } from '../../src/serve/messages.ts'
import { call } from '../support/call.ts'
import { ecPair } from '../support/certificates.ts'
import { PROCESS } from '../support/envoy-stream.ts'
import { pem } from '../support/openssl.ts'
import { first, RawClient } from '../support/raw-client.ts'
import { SDS } from '../support/sds.ts'
import { makeTestCa } from '../support/tls.ts'
import { dialTls, openTlsBridge, type Shown, shownOf } from '../support/tls-bridge.ts'
import { until } from '../support/until.ts'
import { VERIFY_CASES } from '../support/verify-cases.ts'
import { openVerifyRig, type VerifyRig, type VerifyRigOptions } from '../support/verify-rig.ts'
import { WAYS, type Way } from '../support/verify-ways.ts'

const [GATEWAY, BACKEND, SHOP] = ['gateway', 'backend', 'shop'].map(
  (name) => `spiffe://dev.holdfast.test/${name}`,
) as [string, string, string]
const json = WAYS[0] as Way
const stranger = makeTestCa('stranger')

const open = (over: Partial<Parameters<NonNullable<VerifyRigOptions['config']>>[0]['verifier']> = {}) =>
  openVerifyRig({
    verifiers: GATEWAY,
    config: (config) => ({
      ...config,
      verifier: {
        ...config.verifier,
        listen: { host: '127.0.0.1', port: 0 },
        clients: [GATEWAY],
        entry: 'shop',
        ...over,
      },
    }),
  })

const portOf = ({ agent }: VerifyRig) => agent.daemon.verifierPort ?? 0
const refusals = async ({ agent }: VerifyRig) =>
  [
    ...(await agent.metrics.render()).matchAll(
      /^holdfast_connections_total\{reason="(\w+)"(?:,owner="\w+")?\} \d+$/gm,
    ),
  ].map(([, reason]) => reason)

/** What a stranger's CA says of a SPIFFE ID. */
function forged(id: string): Shown {
  const pair = ecPair()
  const der = stranger.certify(pair.publicKey.export({ format: 'der', type: 'spki' }), { uri: id })
  return { cert: pem(der), key: pair.privateKey.export({ format: 'pem', type: 'pkcs8' }) }
}

let rig: VerifyRig
let gateway: Shown

/** Asks again and again on one connection. */
function asking(socket: string): { ask(): ReturnType<typeof call> } & Disposable {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  return {
    ask: () => {
      const { headers, method, path, route } = rig.request()
      return call(socket, 'POST', '/v1/verify', { body: { method, path, route, headers }, agent })
    },
    [Symbol.dispose]: () => agent.destroy(),
  }
}

afterEach(async () => rig?.[Symbol.asyncDispose]())

describe('a listed SPIFFE ID', () => {
  beforeEach(async () => {
    rig = await open()
    gateway = await shownOf(rig.agent.socket, GATEWAY)
  })

  it.each(WAYS.map((way) => [way.name, way] as const))(
    'has every request judged alike by %s',
    async (_name, way) => {
      using bridge = await openTlsBridge(portOf(rig), gateway)
      for (const each of VERIFY_CASES.filter(({ needsPeer }) => way.hasPeer || !needsPeer)) {
        const requests = each.requests(rig)
        for (const request of requests) await way.ask(bridge.socket, request)
        const { reason = 'ok', spiffe_id: asker, uid } = rig.verdicts().at(-1) ?? {}
        expect([each.name, reason, asker, uid]).toEqual([each.name, each.reason, GATEWAY, undefined])
      }
    },
  )

  it('is served nothing but the verifier: no secrets, no signatures, no SVIDs', async () => {
    using bridge = await openTlsBridge(portOf(rig), gateway)
    const services = ['holdfast.v1.ProofService', 'SpiffeWorkloadAPI', SDS]
    const methods = services.flatMap((service) =>
      Object.keys(methodsOf(service)).map((name) => `${service}/${name}`),
    )
    using client = new RawClient(bridge.socket)
    for (const method of [...methods, PROCESS])
      expect([method, (await first(client, method)).code]).toEqual([method, 'UNIMPLEMENTED'])
  })

  it('may ask about its own routes only', async () => {
    using bridge = await openTlsBridge(portOf(rig), gateway)
    expect((await json.ask(bridge.socket, rig.request())).isAllowed).toBe(true)
    const policy = {
      ...rig.policy,
      'platform.yaml': rig.policy['platform.yaml']?.replaceAll(`['${GATEWAY}']`, '[]'),
    }
    await rig.agent.setPolicy(policy as Record<string, string>)
    expect((await json.ask(bridge.socket, rig.request())).reason).toBe('verifier_foreign')
  })

  it('is refused with its next request once it is revoked, on the same connection', async () => {
    using bridge = await openTlsBridge(portOf(rig), gateway)
    using asker = asking(bridge.socket)
    expect((await asker.ask()).status).toBe(200)
    await call(rig.agent.adminSocket, 'POST', '/v1/revoke', { body: { spiffe_id: GATEWAY } })
    const { body: answer, status } = await asker.ask()
    expect([status, answer.error.reason, bridge.ended]).toEqual([403, 'revoked', 0])
    expect(await json.ask(bridge.socket, rig.request()).catch(() => 'hung up')).toBe('hung up')
    expect(await refusals(rig)).toContain('revoked')
  })

  it('whose certificate expires is refused, on an old connection and on a new one', async () => {
    using bridge = await openTlsBridge(portOf(rig), gateway)
    using asker = asking(bridge.socket)
    expect((await asker.ask()).status).toBe(200)
    rig.pass(3_700)
    expect((await asker.ask()).body.error.reason).toBe('svid_expired')
    expect(await json.ask(bridge.socket, rig.request()).catch(() => 'hung up')).toBe('hung up')
    expect(await refusals(rig)).toContain('svid_expired')
  })

  it('gets no handle: nobody on another machine could exchange it', async () => {
    await rig[Symbol.asyncDispose]()
    rig = await openVerifyRig({
      verifiers: GATEWAY,
      handOut: 'handle',
      config: (config) => ({
        ...config,
        verifier: {
          ...config.verifier,
          listen: { host: '127.0.0.1', port: 0 },
          clients: [GATEWAY],
          entry: 'shop',
        },
      }),
    })
    using bridge = await openTlsBridge(portOf(rig), await shownOf(rig.agent.socket, GATEWAY))
    const heard = await json.ask(bridge.socket, rig.request())
    expect([heard.isAllowed, heard.body.handle]).toEqual([true, undefined])
  })

  it('sees an SVID of the stated entry, and a new one after half its life, without losing its connection', async () => {
    using bridge = await openTlsBridge(portOf(rig), gateway)
    using asker = asking(bridge.socket)
    const ask = async () => (await asker.ask()).status
    const seen = async () => {
      const socket = await dialTls(portOf(rig), gateway)
      const leaf = socket?.getPeerCertificate().raw
      socket?.destroy()
      return new X509Certificate(leaf ?? '')
    }
    expect(await ask()).toBe(200)
    const [one, same] = [await seen(), await seen()]
    expect(one.subjectAltName).toBe(`URI:${SHOP}`)
    expect(same.fingerprint256).toBe(one.fingerprint256)
    rig.pass(1_801)
    expect((await seen()).fingerprint256).not.toBe(one.fingerprint256)
    expect([await ask(), bridge.ended]).toEqual([200, 0])
  })

  it('cannot resume a session: the certificate is shown and judged each time', async () => {
    const socket = await dialTls(portOf(rig), gateway, { maxVersion: 'TLSv1.2' })
    const session = socket?.getSession()
    socket?.destroy()
    const again = await dialTls(portOf(rig), gateway, { maxVersion: 'TLSv1.2', session })
    expect(again?.isSessionReused()).toBe(false)
    again?.destroy()
  })
})

describe('nobody else', () => {
  const hungUp = async (shown: Shown) => {
    using bridge = await openTlsBridge(portOf(rig), shown)
    return await json.ask(bridge.socket, rig.request()).then(
      () => 'answered',
      () => 'hung up',
    )
  }

  it.each([
    ['another SPIFFE ID of the trust domain', 'verifier_foreign', () => shownOf(rig.agent.socket, BACKEND)],
    ['no certificate', 'no_identity', async () => ({})],
    ['a certificate of another CA with the right SPIFFE ID', 'svid_invalid', async () => forged(GATEWAY)],
    ['another trust domain', 'bundle_missing', async () => forged('spiffe://example.org/gateway')],
    ['a certificate without a SPIFFE ID', 'svid_invalid', async () => stranger.serverFiles()],
  ])('connects: not %s', async (_who, reason, shown) => {
    rig = await open()
    expect(await hungUp(await shown())).toBe('hung up')
    expect(await refusals(rig)).toContain(reason)
    expect(rig.verdicts()).toEqual([])
  })

  it('connects where the list is empty', async () => {
    rig = await open({ clients: [] })
    expect(await hungUp(await shownOf(rig.agent.socket, GATEWAY))).toBe('hung up')
  })

  it('is let in by plain HTTP', async () => {
    rig = await open()
    const answer = await fetch(`http://127.0.0.1:${portOf(rig)}/v1/verify`).catch(() => 'hung up')
    expect(answer).toBe('hung up')
  })

  it('keeps a place by never ending its handshake', async () => {
    rig = await open()
    const { connect } = await import('node:net')
    const idle = connect(portOf(rig), '127.0.0.1')
    idle.on('error', () => {})
    await until('the end of an idle connection', () => idle.closed || undefined)
    expect(await refusals(rig)).toContain('deadline')
  })
})

describe('the door', () => {
  it('shows the certificate of files, and the next one once they change', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-door-'))
    const [certificateFile, keyFile] = [join(dir, 'cert.pem'), join(dir, 'key.pem')]
    const write = ({ cert, key }: { cert: string; key: string }) => {
      writeFileSync(keyFile, key, { mode: 0o600 })
      writeFileSync(certificateFile, cert)
    }
    const [one, two] = [stranger.serverFiles(), stranger.serverFiles()]
    write(one)
    rig = await open({ entry: undefined, certificateFile, keyFile })
    gateway = await shownOf(rig.agent.socket, GATEWAY)
    const seen = async () => {
      const socket = await dialTls(portOf(rig), gateway, {
        ca: stranger.pem,
        rejectUnauthorized: true,
        servername: 'localhost',
      })
      const der = socket?.getPeerCertificate().raw
      socket?.destroy()
      return der && pem(der)
    }
    expect(await seen()).toBe(one.cert)
    write(two)
    await until('the next certificate', async () => ((await seen()) === two.cert ? true : undefined))
    rmSync(dir, { recursive: true })
  })

  it.each([
    ['no entry of that name', { entry: 'nobody' }, 'verifier.entry'],
    ['an address that is not here', { listen: { host: '192.0.2.1', port: 1 } }, 'verifier.listen'],
  ])('does not open with %s', async (_what, over, named) => {
    await expect(open(over)).rejects.toMatchObject({
      reason: 'config_invalid',
      message: expect.stringContaining(named),
    })
  })
})
