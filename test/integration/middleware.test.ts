/** The middleware behind real servers: what it takes and refuses is the same in every shape it comes in. */
import { connect as connectHttp2 } from 'node:http2'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Reason } from '../../src/base/reasons.ts'
import { x5tOf } from '../../src/ingress/confirmation.ts'
import type { Inbound } from '../../src/ingress/inbound.ts'
import { holdKey } from '../../src/keys/signer.ts'
import { hashOf } from '../../src/proof/jwt.ts'
import { makeWpt } from '../../src/proof/wpt.ts'
import { STATUS } from '../../src/serve/status.ts'
import type { SpiffeId } from '../../src/spiffe/id.ts'
import { makeJwtSvid } from '../../src/spiffe/jwtsvid.ts'
import { makeWitSvid } from '../../src/spiffe/witsvid.ts'
import type { LocalOptions } from '../../src/verify/options.ts'
import { ecPair } from '../support/certificates.ts'
import {
  type DocumentServer,
  type Opened,
  openDocuments,
  openMiddleware,
  type ROUTE_OPTIONS,
} from '../support/middleware.ts'
import {
  ca,
  HTTP2_WAY,
  type RunningServer,
  type Seen,
  sendRaw,
  WAYS,
  type Way,
  type WireAnswer,
} from '../support/middleware-servers.ts'
import { pem } from '../support/openssl.ts'
import { DPOP_CASES, TOKEN_HEADER_CASES, withTokenHeader } from '../support/request-cases.ts'
import { statusToken } from '../support/status-list.ts'
import { makeTestCa } from '../support/tls.ts'
import { openVerifier, type RequestOf, type TestVerifier } from '../support/verifier.ts'

const WEB = 'spiffe://example.org/web' as SpiffeId
let v: TestVerifier
let keys: DocumentServer

beforeAll(async () => {
  keys = await openDocuments()
})
afterAll(async () => {
  await keys[Symbol.asyncDispose]()
})
beforeEach(async () => {
  v = await openVerifier()
})

/** Runs `what` against the middleware of a route in a running server. */
async function running(
  way: Way,
  route: keyof typeof ROUTE_OPTIONS,
  what: (opened: Opened & RunningServer) => Promise<void>,
  { options, ...tls }: { readonly options?: Partial<LocalOptions>; readonly requestCert?: boolean } = {},
): Promise<void> {
  const opened = openMiddleware(v, keys, route, options)
  await using server = await way.open(opened.verifier, {
    ...(tls.requestCert ? { requestCert: true, rejectUnauthorized: false, ca: ca.pem } : {}),
  })
  await what({ ...opened, port: server.port, [Symbol.asyncDispose]: async () => {} })
}

/** The reason that the application heard, `ok` when it got the request; what went outside is checked on the way. */
async function outcome(
  { heard, port }: Pick<Opened & RunningServer, 'heard' | 'port'>,
  request: Inbound,
  tls?: Parameters<typeof sendRaw>[2],
): Promise<string> {
  heard.length = 0
  const answer = await sendRaw(port, request, tls)
  if (answer.status === 200) {
    expect(heard).toEqual([])
    expect((JSON.parse(answer.body) as Seen).verified.caller.names.length).toBeGreaterThan(0)
    return 'ok'
  }
  expect(answer.body).toBe('')
  const [reason = 'nothing was heard'] = heard
  expect(heard).toHaveLength(1)
  checkOutside(answer, reason as Reason, request.headers.includes('Workload-Identity-Token'))
  return reason
}

/** The fine reason is nowhere in the answer: only its class is. */
function checkOutside({ status, headers }: WireAnswer, reason: Reason, isWimse: boolean): void {
  const text = JSON.stringify([...headers])
  expect(text).not.toContain(reason)
  const challenge = headers.get('www-authenticate')
  expect(challenge !== undefined).toBe(status === 401 || reason === 'scope_missing')
  const isProof = STATUS[reason].oauth === 'invalid_dpop_proof'
  if (isWimse && isProof) expect(status).toBe(400)
  else if (status !== 401) expect(status).toBe(STATUS[reason].http)
  expect(headers.has('dpop-nonce')).toBe(STATUS[reason].oauth === 'use_dpop_nonce')
}

const FETCH_PARSES: Readonly<Record<string, string>> = { 'with dots in its path': 'route_unknown' }

describe.each(WAYS)('a DPoP request to $name', (way) => {
  const isRouter = way.name.startsWith('a router')
  /** What a router is not mounted at never reaches it. */
  const cases = DPOP_CASES.filter(
    ([what]) => !(isRouter && /that no grant names$|with dots/.test(what) && /path/.test(what)),
  )

  it('is judged as by the verifier, by every case there is', async () => {
    await running(way, 'api', async (server) => {
      for (const [what, over, reason] of cases) {
        const expected = way.name === 'fetch' ? (FETCH_PARSES[what] ?? reason) : reason
        expect.soft(await outcome(server, v.request(over)), what).toBe(expected)
      }
      for (const [what, header, reason] of TOKEN_HEADER_CASES)
        expect.soft(await outcome(server, withTokenHeader(v, header)), what).toBe(reason)
    })
  })

  it('is taken once of many that arrive at once', async () => {
    await running(way, 'api', async ({ port }) => {
      const request = v.request()
      const answers = await Promise.all(Array.from({ length: 20 }, () => sendRaw(port, request)))
      expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
      expect(answers.filter(({ status }) => status === 401)).toHaveLength(19)
    })
  })

  it('reaches the application without what it says of its own caller', async () => {
    await running(way, 'api', async ({ port }) => {
      const claims = [
        'x-holdfast-caller',
        'root',
        'X-Holdfast-Subject',
        'root',
        'X-HOLDFAST-Handle',
        'h',
        'X-Other',
        '1',
      ]
      const { body } = await sendRaw(port, v.request({ headers: claims }))
      const { names, verified } = JSON.parse(body) as Seen
      expect(names.filter((name) => name.toLowerCase().startsWith('x-holdfast'))).toEqual([])
      expect(names).toContain('x-other')
      expect(verified).toEqual({
        route: 'api',
        caller: {
          names: ['client:login/web'],
          client_id: 'web',
          subject: 'web',
          actors: [],
          scopes: ['read'],
        },
        binding: { kind: 'dpop', jkt: v.key.jkt },
        claims: expect.objectContaining({ iss: 'https://login.example.org', client_id: 'web' }),
        expires: expect.any(Number),
      })
    })
  })
})

describe.each(WAYS.filter(({ name }) => !name.startsWith('a router')))(
  'a route of $name that wants nonces, behind a hop',
  (way) => {
    const pair = ecPair()
    const spki = pair.publicKey.export({ format: 'der', type: 'spki' })
    const shown = (uri: string, by = ca) => ({
      cert: pem(by.certify(spki, { uri })),
      key: String(pair.privateKey.export({ format: 'pem', type: 'pkcs8' })),
    })
    const strict = (over: Partial<RequestOf> = {}) =>
      v.request({ route: 'strict', url: 'https://api.example.org/v1/items', ...over })

    it('gives one to a caller without, a fresh one with each answer, and knows the hop by its SVID alone', async () => {
      v = await openVerifier(undefined, { start: Date.now() })
      const gateway = shown('spiffe://example.org/gateway')
      await running(
        way,
        'strict',
        async (server) => {
          const { port } = server
          expect(await outcome(server, strict(), gateway)).toBe('proof_nonce')
          const nonce = (await sendRaw(port, strict(), gateway)).headers.get('dpop-nonce')
          const taken = await sendRaw(port, strict({ proof: { nonce } }), gateway)
          expect(taken.status).toBe(200)
          expect(taken.headers.get('dpop-nonce')).toBe(nonce)
          const proof = { nonce }
          expect(await outcome(server, strict({ proof }))).toBe('hop_unexpected')
          expect(await outcome(server, strict({ proof }), shown(WEB))).toBe('hop_unexpected')
          const stranger = shown('spiffe://example.org/gateway', makeTestCa('another'))
          expect(await outcome(server, strict({ proof }), stranger)).toBe('hop_unexpected')
          expect(await outcome(server, strict({ proof }), gateway)).toBe('ok')
        },
        { requestCert: true },
      )
    })

    it('takes a token bound to a certificate from the channel that shows it', async () => {
      v = await openVerifier(undefined, { start: Date.now() })
      const certificate = ca.certify(spki, { uri: WEB })
      const key = String(pair.privateKey.export({ format: 'pem', type: 'pkcs8' }))
      const cnf = { 'x5t#S256': x5tOf(certificate) }
      const mtls = () => v.request({ scheme: 'Bearer', without: ['DPoP'], claims: { cnf } })
      await running(
        way,
        'api',
        async (server) => {
          expect(await outcome(server, mtls(), { cert: pem(certificate), key })).toBe('ok')
          expect(await outcome(server, mtls())).toBe('token_downgraded')
          expect(await outcome(server, mtls(), { cert: pem(ca.certify(spki, { uri: WEB })), key })).toBe(
            'token_stolen',
          )
          const foreign = makeTestCa('another').certify(spki, { uri: WEB })
          const over = {
            scheme: 'Bearer',
            without: ['DPoP'],
            claims: { cnf: { 'x5t#S256': x5tOf(foreign) } },
          }
          expect(await outcome(server, v.request(over), { cert: pem(foreign), key })).toBe('token_downgraded')
          const headers = ['Client-Cert', `:${certificate.toString('base64')}:`]
          expect(await outcome(server, { ...mtls(), headers: [...mtls().headers, ...headers] })).toBe(
            'token_downgraded',
          )
        },
        { requestCert: true },
      )
    })

    it('takes bearer tokens under its exception alone, as often as it says', async () => {
      const bearer = (over: Partial<RequestOf> = {}) =>
        v.request({ route: 'open', scheme: 'Bearer', without: ['DPoP'], ...over })
      const exp = () => Math.floor(v.clock.now() / 1000) + 60
      await running(way, 'open', async (server) => {
        for (const reason of ['ok', 'ok', 'ok', 'rate_limited'])
          expect(await outcome(server, bearer({ claims: { cnf: undefined, exp: exp() } }))).toBe(reason)
        expect(await outcome(server, bearer({ claims: { cnf: undefined, exp: exp() + 300 } }))).toBe(
          'token_too_long',
        )
        expect(
          await outcome(server, bearer({ claims: { cnf: undefined, client_id: 'x', exp: exp() } })),
        ).toBe('token_unbound')
      })
    })

    it('takes a WIT with its proof, and a JWT-SVID over mutual TLS of the same workload only', async () => {
      v = await openVerifier(undefined, { start: Date.now() })
      const held = holdKey(pair.privateKey, 'ES256')
      const now = () => Math.floor(v.clock.now() / 1000)
      const wit = () => {
        const claims = {
          spiffeId: WEB,
          publicJwk: held.publicJwk,
          jwkAlg: 'ES256',
          now: now(),
          expires: now() + 600,
          kid: 'w1',
        }
        return makeWitSvid(claims, holdKey(v.wit.privateKey, 'ES256'))
      }
      const mesh = (): Inbound => {
        const shownWit = wit()
        const { proof } = makeWpt(
          held,
          { aud: 'https://mesh.example.org/x', wit: shownWit, ath: undefined },
          v.clock,
        )
        const headers = ['Host', 'x', 'Workload-Identity-Token', shownWit, 'Workload-Proof-Token', proof]
        return { ...v.request({ route: 'mesh', path: '/x' }), headers }
      }
      await running(way, 'mesh', async (server) => {
        const one = mesh()
        expect(await outcome(server, one)).toBe('ok')
        expect(await outcome(server, one)).toBe('proof_replayed')
        expect(await outcome(server, { ...one, headers: [...one.headers, ...one.headers.slice(4)] })).toBe(
          'proof_repeated',
        )
      })
      const svid = (): Inbound => {
        const claims = { spiffeId: WEB, audience: ['api'], now: now(), expires: now() + 60, kid: 'j1' }
        const token = makeJwtSvid(claims, holdKey(v.issuer.privateKey, 'ES256'))
        return { ...v.request({ route: 'svid' }), headers: ['Host', 'x', 'Authorization', `Bearer ${token}`] }
      }
      const run = async (server: Opened & RunningServer) => {
        expect(await outcome(server, svid(), shown(WEB))).toBe('ok')
        expect(await outcome(server, svid())).toBe('token_unbound')
        expect(await outcome(server, svid(), shown('spiffe://example.org/batch'))).toBe('token_stolen')
      }
      await running(way, 'svid', run, { requestCert: true })
    })
  },
)

describe('a request over HTTP/2', () => {
  const ask = (port: number, inbound: Inbound, more: Record<string, string | string[]> = {}) =>
    new Promise<{ readonly status: number; readonly body: string }>((resolve, reject) => {
      const session = connectHttp2(`https://localhost:${port}`, { ca: ca.pem })
      session.on('error', reject)
      const own = Object.fromEntries(
        inbound.headers.flatMap((name, at) =>
          at % 2 === 0 && name !== 'Host' ? [[name.toLowerCase(), inbound.headers[at + 1] ?? '']] : [],
        ),
      )
      const stream = session.request({ ':method': inbound.method, ':path': inbound.path, ...own, ...more })
      let status = 0
      let body = ''
      stream.on('response', (headers) => {
        status = Number(headers[':status'])
      })
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
      })
      stream.on('error', reject).on('close', () => {
        session.close()
        resolve({ status, body })
      })
    })

  it('is taken once, and refused when a header comes twice', async () => {
    await running(HTTP2_WAY, 'api', async ({ heard, port }) => {
      const request = v.request()
      const { status, body } = await ask(port, request, { 'x-holdfast-caller': 'root' })
      expect(status).toBe(200)
      expect((JSON.parse(body) as Seen).names).not.toContain('x-holdfast-caller')
      expect((await ask(port, request)).status).toBe(401)
      const twice = v.request()
      const dpop = twice.headers[twice.headers.indexOf('DPoP') + 1] ?? ''
      expect((await ask(port, twice, { dpop: [dpop, 'x'] })).status).toBe(400)
      expect((await ask(port, twice)).status).toBe(200)
      expect(heard).toEqual(['proof_replayed', 'proof_repeated'])
    })
  })
})

describe('what the application adds', () => {
  const [node] = WAYS
  if (!node) throw new Error('no way')

  it('is asked whether something was revoked, and anything but a plain no is a yes', async () => {
    for (const [answer, reason] of [
      [false, 'ok'],
      [true, 'token_revoked'],
      [Promise.resolve(false), 'token_revoked'],
      [undefined, 'token_revoked'],
    ] as const) {
      const options = { isRevoked: () => answer as boolean }
      await running(node, 'api', async (server) => expect(await outcome(server, v.request())).toBe(reason), {
        options,
      })
    }
  })

  it('may keep proofs in a store of its own, whose failure refuses', async () => {
    let answer: () => Promise<'fresh' | 'replayed'> = async () => 'fresh'
    const options = { replay: { use: () => answer(), stop: () => {} } }
    const run = async (server: Opened & RunningServer) => {
      expect(await outcome(server, v.request())).toBe('ok')
      answer = async () => 'replayed'
      expect(await outcome(server, v.request())).toBe('proof_replayed')
      answer = () => Promise.reject(new Error('down'))
      expect(await outcome(server, v.request())).toBe('bug')
    }
    await running(node, 'api', run, { options })
  })

  it('does not let a request pass when its log fails', async () => {
    const options = {
      onRefused: () => {
        throw new Error('disk full')
      },
    }
    const run = async ({ port }: RunningServer) => {
      expect((await sendRaw(port, v.request({ without: ['DPoP'] }))).status).toBe(401)
    }
    await running(node, 'api', run, { options })
  })

  it('refuses a target that is not a path', async () => {
    await running(node, 'api', async (server) => {
      const request = { ...v.request(), path: 'https://api.example.org/v1/items' }
      expect(await outcome(server, request)).toBe('invalid_request')
    })
  })

  it('hears that keys cannot be had, and the caller is told to come again', async () => {
    await running(node, 'api', async ({ heard, port }) => {
      keys.documents.set('/jwks', { status: 500, body: '' })
      const answer = await sendRaw(port, v.request())
      expect([answer.status, answer.headers.get('retry-after'), heard]).toEqual([503, '1', ['verifier_keys']])
    })
  })

  it('looks tokens up in their status list, at the origins that are stated', async () => {
    const uri = `${keys.origin}/status`
    const login = {
      name: 'login',
      issuer: 'https://login.example.org',
      jwksUri: `${keys.origin}/jwks`,
      statusLists: [keys.origin],
      ca: ca.pem,
    }
    const options = { servers: [login], status: 'required' } as const
    const list = { uri, iat: v.clock.now() / 1000, statuses: [0, 1] }
    keys.documents.set('/status', { body: statusToken(v.issuer, list) })
    const ask = (server: Parameters<typeof outcome>[0], status?: object) =>
      outcome(server, v.request({ claims: status ? { status: { status_list: status } } : {} }))
    const run = async (server: Parameters<typeof outcome>[0]) => {
      expect(await ask(server, { idx: 0, uri })).toBe('ok')
      expect(await ask(server, { idx: 1, uri })).toBe('token_revoked')
      expect(await ask(server, { idx: 0, uri: 'https://elsewhere.example.org/' })).toBe('token_status')
      expect(await ask(server)).toBe('token_status')
    }
    await running(node, 'api', run, { options })
  })

  it('takes the hash of the very token', async () => {
    await running(node, 'api', async (server) => {
      expect(await outcome(server, v.request({ proof: { ath: hashOf(v.token()) } }))).toBe('proof_token')
    })
  })
})
