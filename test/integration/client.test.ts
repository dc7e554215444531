/** The SDK against a real agent on a real socket. */
import { X509Certificate } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'
import { decodeJwt, decodeProtectedHeader, EmbeddedJWK, generateKeyPair, jwtVerify, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import { openAgent } from '../../src/client/agent.ts'
import { CODE } from '../../src/client/grpc.ts'
import { type HeldKey, openJwtSource, openSigner, openX509Source, wrapFetch } from '../../src/client/index.ts'
import { startAgent } from '../support/agent.ts'
import { until } from '../support/until.ts'

const API = 'https://api.example.test/v1/items'
const reasonOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof Fault ? error.reason : String(error)),
  )

describe('the signer', () => {
  it('gives proofs that verify by the key they carry', async () => {
    await using agent = await startAgent()
    await using signer = openSigner({ socket: agent.socket })
    const { proof, jkt, jti, iat } = await signer.dpop({ method: 'GET', url: `${API}?secret=1#x` })
    const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, { typ: 'dpop+jwt' })
    expect(payload).toEqual({ htm: 'GET', htu: API, jti, iat })
    expect(protectedHeader.alg).toBe('ES256')
    expect(jkt).toMatch(/^[\w-]{43}$/)
  })

  it('makes 500 proofs at once, each its own, on one connection', async () => {
    await using agent = await startAgent()
    await using signer = openSigner({ socket: agent.socket })
    const proofs = await Promise.all(
      Array.from({ length: 500 }, (_, index) => signer.dpop({ method: 'GET', url: `${API}/${index}` })),
    )
    expect(new Set(proofs.map(({ jti }) => jti)).size).toBe(500)
    expect(proofs.map(({ proof }) => decodeJwt(proof)['htu'])).toEqual(
      proofs.map((_, index) => `${API}/${index}`),
    )
    expect(agent.daemon.status().connections).toBe(1)
  })

  it('rejects what policy refuses, in the words of the agent, and nothing beside it', async () => {
    await using agent = await startAgent()
    await using signer = openSigner({ socket: agent.socket })
    const [good, unknown, malformed, foreign] = await Promise.allSettled([
      signer.dpop({ method: 'GET', url: API }),
      signer.dpop({ method: 'GET', url: 'https://elsewhere.example.test/' }),
      signer.dpop({ method: 'GET', url: 'https://api.example.test/%2e%2e/x' }),
      signer.dpop({ method: 'GET', url: API, accessToken: 'canary-opaque' }),
    ])
    expect(good.status).toBe('fulfilled')
    const faults = [unknown, malformed, foreign].map(
      (each) => (each as PromiseRejectedResult).reason as Fault,
    )
    expect(faults.map(({ reason }) => reason)).toEqual(['target_unknown', 'url_refused', 'token_malformed'])
    expect(faults.every(({ action, owner }) => action !== '' && owner !== undefined)).toBe(true)
    expect(JSON.stringify(faults)).not.toContain('canary')
  })

  it('gives a WPT with the WIT that it belongs to', async () => {
    await using agent = await startAgent()
    await using signer = openSigner({ socket: agent.socket })
    const { proof, wit, jkt, exp } = await signer.wpt({ url: API })
    expect(decodeProtectedHeader(wit)).toMatchObject({ typ: 'wit+jwt' })
    expect(decodeProtectedHeader(proof)).toMatchObject({ typ: 'wpt+jwt' })
    expect(decodeJwt(proof)).toMatchObject({ aud: API, exp })
    expect(jkt).toMatch(/^[\w-]{43}$/)
  })

  it('goes on after a restart of the agent, and says which keys were lost', async () => {
    const first = await startAgent()
    await using signer = openSigner({ socket: first.socket })
    const before = await signer.dpop({ method: 'GET', url: API })
    const lost: HeldKey[] = []
    signer.onKeysLost((keys) => lost.push(...keys))
    let seen: readonly HeldKey[] = []
    signer.onKeys(({ keys }) => {
      seen = keys
    })
    await until('the keys', () => seen.length > 0)
    await first.daemon.stop(0)
    const asked = signer.dpop({ method: 'GET', url: API }, { timeoutMs: 20_000 })
    await using second = await startAgent({ dir: first.dir })
    const after = await asked
    expect(after.jkt).not.toBe(before.jkt)
    await until('the loss', () => lost.length > 0)
    expect(lost.map(({ jkt }) => jkt)).toEqual([before.jkt])
    expect(second.socket).toBe(first.socket)
    await first[Symbol.asyncDispose]()
  })

  it('loses its keys and its proofs when the entry goes', async () => {
    await using agent = await startAgent()
    await using signer = openSigner({ socket: agent.socket })
    const { jkt } = await signer.dpop({ method: 'GET', url: API })
    const lost: string[] = []
    let isThere = false
    signer.onKeys(({ keys }) => {
      isThere ||= keys.some((key) => key.jkt === jkt)
    })
    signer.onKeysLost((keys) => lost.push(...keys.map((key) => key.jkt)))
    await until('the key', () => isThere)
    await agent.setPolicy({ 'identity.yaml': 'layer: identity\nentries: []\n' })
    await until('the loss', () => lost.length > 0)
    expect(lost).toEqual([jkt])
    expect(await reasonOf(signer.dpop({ method: 'GET', url: API }))).toBe('no_identity')
  })

  it('says which socket nobody answers on', async () => {
    await using signer = openSigner({ socket: '/tmp/holdfast-nobody/public/workload.sock' })
    const error = await signer.dpop({ method: 'GET', url: API }, { timeoutMs: 300 }).catch((caught) => caught)
    expect(error).toMatchObject({ reason: 'agent_unreachable' })
    expect(error.message).toContain('/tmp/holdfast-nobody/public/workload.sock')
    expect(error.message).toContain('does not exist')
  })

  it('refuses a socket that is not a unix one', () => {
    expect(() => openSigner({ socket: 'tcp://127.0.0.1:8080' })).toThrow(/wanted unix:/)
  })
})

describe('the wrapped fetch', () => {
  it('calls a resource server that wants a nonce, with a token bound to the key of this process', async () => {
    await using agent = await startAgent()
    await using signer = openSigner({ socket: agent.socket })
    const seen: (string | undefined)[] = []
    const server = createServer(async (request, response) => {
      const { payload } = await jwtVerify(String(request.headers['dpop']), EmbeddedJWK)
      seen.push(payload['nonce'] as string | undefined)
      response.setHeader('dpop-nonce', 'n1')
      const isGood = payload['nonce'] === 'n1'
      if (!isGood) response.setHeader('www-authenticate', 'DPoP error="use_dpop_nonce"')
      response.writeHead(isGood ? 200 : 401).end(request.headers.authorization)
    }).listen(0, '127.0.0.1')
    try {
      await until('the server', () => server.listening)
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/items`
      const { jkt } = await signer.dpop({ method: 'GET', url })
      const accessToken = await boundToken(jkt)
      const call = wrapFetch(signer, { accessToken: () => accessToken })
      const response = await call(url)
      expect([response.status, await response.text()]).toEqual([200, `DPoP ${accessToken}`])
      expect((await call(url, { method: 'POST', body: 'x' })).status).toBe(200)
      expect(seen).toEqual([undefined, 'n1', 'n1'])
    } finally {
      server.close()
      server.closeAllConnections()
    }
  })

  it('sends nothing with a token that is bound to another key', async () => {
    await using agent = await startAgent()
    await using signer = openSigner({ socket: agent.socket })
    const accessToken = await boundToken('A'.repeat(43))
    let sent = 0
    const send = (async () => {
      sent += 1
      return new Response()
    }) as typeof fetch
    const call = wrapFetch(signer, { accessToken: () => accessToken, fetch: send })
    expect(await reasonOf(call(API))).toBe('token_foreign')
    expect(sent).toBe(0)
  })
})

describe('the sources', () => {
  it('give an X.509-SVID that two parties make a TLS connection with', async () => {
    await using agent = await startAgent()
    await using source = await openX509Source({ socket: agent.socket })
    const options = { ...source.pem(), requestCert: true, rejectUnauthorized: true }
    const server = createTlsServer(options, (socket) => socket.end('hello')).listen(0, '127.0.0.1')
    try {
      await until('the server', () => server.listening)
      const { port } = server.address() as AddressInfo
      const client = connectTls({
        ...source.pem(),
        port,
        host: '127.0.0.1',
        checkServerIdentity: () => undefined,
      })
      const text = await new Promise<string>((resolve, reject) => {
        client.once('data', (data) => resolve(String(data)))
        client.once('error', reject)
      })
      expect(text).toBe('hello')
      expect(new X509Certificate(source.pem().cert).subjectAltName).toBe(`URI:${source.svid().spiffeId}`)
      client.destroy()
    } finally {
      server.close()
    }
  })

  it('fetch JWT-SVIDs that the agent finds valid for their audience and no other', async () => {
    await using agent = await startAgent()
    await using source = await openJwtSource({ socket: agent.socket })
    const svid = await source.fetchJwt('orders')
    expect(await source.validate(svid.token, 'orders')).toMatchObject({
      spiffeId: svid.spiffeId,
      claims: { sub: svid.spiffeId, exp: svid.expiresAt },
    })
    expect(await reasonOf(source.validate(svid.token, 'payments'))).toBe('svid_audience')
    const trustDomain = svid.spiffeId.split('/')[2] ?? ''
    expect(JSON.parse(source.bundle(trustDomain)).keys.length).toBeGreaterThan(0)
  })

  it('go on with their connection after a refusal, which is asked for once', async () => {
    await using agent = await startAgent()
    await using source = await openJwtSource({ socket: agent.socket })
    await source.fetchJwt('orders')
    const { connections } = agent.daemon.status()
    const before = agent.records.length
    const refused = source.fetchJwt('orders', { spiffeId: 'spiffe://dev.holdfast.test/other' })
    expect(await reasonOf(refused)).toBe('no_identity')
    expect(await reasonOf(source.fetchJwt('orders'))).toBe('none')
    expect(agent.records.slice(before).filter(({ allowed }) => !allowed).length).toBeLessThanOrEqual(1)
    expect(agent.daemon.status().connections).toBe(connections)
  })

  it('end a call with the reason of its signal', async () => {
    await using agent = await startAgent()
    await using source = await openJwtSource({ socket: agent.socket })
    const reason = new Error('no longer wanted')
    await expect(source.fetchJwt('orders', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const controller = new AbortController()
    const under = source.fetchJwt('orders', { signal: controller.signal })
    controller.abort(reason)
    await expect(under).rejects.toBe(reason)
  })

  it('fetch on over a restart of the agent', async () => {
    const first = await startAgent()
    await using source = await openJwtSource({ socket: first.socket })
    await source.fetchJwt('orders')
    await first.daemon.stop(0)
    expect(await reasonOf(source.fetchJwt('orders'))).toBe('agent_unreachable')
    await using _second = await startAgent({ dir: first.dir })
    expect(await reasonOf(source.fetchJwt('orders'))).toBe('none')
    await first[Symbol.asyncDispose]()
  })

  it('hear UNAVAILABLE from an agent that drains, and are not cut off', async () => {
    await using agent = await startAgent()
    const client = openAgent({ socket: agent.socket })
    const ends: (string | number)[] = []
    let messages = 0
    for (const method of ['SpiffeWorkloadAPI/FetchX509SVID', 'holdfast.v1.ProofService/WatchKeys'] as const) {
      const onMessage = () => {
        messages += 1
      }
      client.stream(method, { onMessage, onEnd: ({ code, fault }) => ends.push(code, fault.reason) }, {})
    }
    await until('both streams', () => messages === 2)
    await agent.daemon.stop(500)
    await until('both ends', () => ends.length === 4)
    expect(ends).toEqual([CODE.UNAVAILABLE, 'draining', CODE.UNAVAILABLE, 'draining'])
  })

  it('end a wait for an agent that never comes with what was tried', async () => {
    const socket = '/tmp/holdfast-nobody/public/workload.sock'
    const opening = openX509Source({ socket, signal: AbortSignal.timeout(300) })
    const error = await opening.catch((caught) => caught)
    expect(error).toMatchObject({ reason: 'agent_unreachable' })
    expect(error.message).toContain(socket)
  })
})

/** What an authorization server would issue; the agent reads it and leaves its signature to the resource server. */
async function boundToken(jkt: string): Promise<string> {
  const { privateKey } = await generateKeyPair('ES256')
  const now = Math.floor(Date.now() / 1000)
  return new SignJWT({ cnf: { jkt } })
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' })
    .setIssuedAt(now)
    .setExpirationTime(now + 60)
    .sign(privateKey)
}
