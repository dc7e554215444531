/** Requests that are signed (RFC 9421, the WIMSE profile): what a target that checks them sees. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { request as sendHttp } from 'node:http'
import { request as sendHttps } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { nowSeconds, systemClock } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import { DigestCheck, digestOf, parseContentDigest } from '../../src/proof/content-digest.ts'
import type { SignedRequest } from '../../src/proof/http-message.ts'
import { readSignature, verifySignature } from '../../src/proof/httpsig-verify.ts'
import { WIMSE_RULES, WIMSE_TAG } from '../../src/proof/wimse-signature.ts'
import { type BundleOf, parseBundle } from '../../src/spiffe/bundle.ts'
import { verifyWitSvid } from '../../src/spiffe/witsvid.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { RawClient } from '../support/raw-client.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { isSigned } from '../support/signed-request.ts'
import { makeTestCa } from '../support/tls.ts'
import { makeWitAuthority } from '../support/wit-authority.ts'

const ca = makeTestCa()
const { authority, wit } = makeWitAuthority()

/** What a target says of a request that it has checked; `whole` is false when its body was cut off. */
interface Verdict {
  readonly spiffeId?: string
  readonly reason?: string
  readonly input: string
  readonly digest: boolean | undefined
  readonly size: number
}

let bundleOf: BundleOf = () => authority.bundle.get()
let port: number
const cutOff: number[] = []

/** Checks WIT, signature, audience and digest as a target has to, by our verifier and by a second one. */
function verdictOn(request: IncomingMessage, body: Buffer): Verdict {
  const [path = '', query] = String(request.url).split('?')
  const message: SignedRequest = {
    method: String(request.method),
    scheme: 'https',
    authority: `localhost:${port}`,
    path,
    query: query === undefined ? '' : `?${query}`,
    headers: request.rawHeaders,
  }
  const input = String(request.headers['signature-input'])
  const value = request.headers['content-digest']
  const check =
    value === undefined ? undefined : new DigestCheck(parseContentDigest(String(value)) ?? new Map())
  check?.update(body)
  const seen = { input, digest: check?.isMatch(), size: body.length }
  try {
    const now = nowSeconds(systemClock)
    const wit = verifyWitSvid(String(request.headers['workload-identity-token']), bundleOf, now)
    const received = readSignature(message, { tag: WIMSE_TAG })
    verifySignature(message, received, WIMSE_RULES, wit, now)
    expect(isSigned(request, wit.key)).toBe(true)
    expect(received.parameters.get('wimse-aud')?.value).toBe(`https://localhost:${port}${path}`)
    return { spiffeId: wit.spiffeId, ...seen }
  } catch (caught) {
    if (!(caught instanceof Fault)) throw caught
    return { reason: caught.reason, ...seen }
  }
}

function judge(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = []
  let size = 0
  request.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    size += chunk.length
  })
  request.on('error', () => {})
  request.on('close', () => request.complete || cutOff.push(size))
  request.on('end', () => response.end(JSON.stringify(verdictOn(request, Buffer.concat(chunks)))))
}

/** Sends on to `/judge` once it has the body. */
function moved(request: IncomingMessage, response: ServerResponse): void {
  request.resume()
  request.on('end', () => response.writeHead(307, { Location: '/judge?moved' }).end())
}

let server: ResourceServer
let egress: TestEgress
let without: TestEgress

beforeAll(async () => {
  server = await startResourceServer({
    ca,
    handlers: { '/judge': judge, '/bound': judge, '/moved': moved },
    open: ['/judge', '/moved'],
  })
  port = server.port
  const origin = `https://localhost:${port}`
  const free = 'server: none, tokenless: true, binding: [http-signature]'
  const targets = {
    free: { origin, identity: free, grant: 'signed_headers: [x-batch, x-note, cookie]' },
    plain: { origin, identity: free },
    moving: { origin, identity: free, platform: 'redirects: true' },
    both: { origin, identity: 'server: login, binding: [http-signature, dpop]' },
    txn: { origin, identity: `${free}, txn_token: true` },
  }
  egress = await startEgress({ ca, targets, wit })
  without = await startEgress({ ca, targets, wit: 'off' })
})

afterAll(async () => {
  await egress?.[Symbol.asyncDispose]()
  await without?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  authority.stop()
})

interface Sending {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string | string[]>>
  readonly body?: Buffer | string
  readonly socket?: string
}

interface Got {
  readonly status: number
  readonly verdict: Verdict
  readonly reason: unknown
}

/** Over the egress socket, as an application sends. */
function send(host: string, sending: Sending = {}): Promise<Got> {
  const { method = 'GET', path = '/judge', headers = {}, body, socket = egress.socket } = sending
  return new Promise((resolve, reject) => {
    const sent = sendHttp({ socketPath: socket, method, path, headers: { host, ...headers } }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          verdict: text === '' ? {} : JSON.parse(text),
          reason: response.headers['holdfast-reason'],
        }),
      )
    })
    sent.on('error', reject)
    if (headers['expect'] === undefined) sent.end(body)
    else sent.on('continue', () => sent.end(body))
  })
}

const WEB = 'spiffe://example.org/web'
const coveredBy = ({ input }: Verdict) => input.slice(input.indexOf('('), input.indexOf(')') + 1)

describe('a target bound by http-signature', () => {
  it('gets a signature over method, path, query and the WIT of its key, for this target', async () => {
    const { verdict } = await send('free', { path: '/judge?a=1&b=%20' })
    expect(verdict).toMatchObject({ spiffeId: WEB, size: 0 })
    expect(coveredBy(verdict)).toBe('("@method" "@path" "@query" "workload-identity-token")')
    expect(verdict.input).not.toMatch(/keyid|alg=/)
  })

  it('gets another nonce with each request', async () => {
    const nonceIn = ({ verdict }: Got) => /nonce="([^"]*)"/.exec(verdict.input)?.[1]
    expect(nonceIn(await send('free'))).not.toBe(nonceIn(await send('free')))
  })

  it('gets content type, body and the headers that the grant lists covered, and no others', async () => {
    const headers = { 'content-type': 'text/plain', 'x-batch': '7', 'x-other': '8' }
    const { verdict } = await send('free', { method: 'POST', headers, body: 'hello' })
    expect(verdict).toMatchObject({ spiffeId: WEB, digest: true, size: 5 })
    expect(coveredBy(verdict)).toBe(
      '("@method" "@path" "@query" "content-type" "content-digest" "workload-identity-token" "x-batch")',
    )
    const plain = await send('plain', { headers: { 'x-batch': '7' } })
    expect(coveredBy(plain.verdict)).not.toMatch('x-batch')
  })

  it('gets the Txn-Token covered where it passes', async () => {
    const { verdict } = await send('txn', { headers: { 'txn-token': 'a.b.c' } })
    expect(coveredBy(verdict)).toMatch('"txn-token"')
    expect(verdict).toMatchObject({ spiffeId: WEB })
  })

  it('gets token and DPoP proof covered where both kinds are listed', async () => {
    const { verdict } = await send('both', { path: '/bound' })
    expect(verdict).toMatchObject({ spiffeId: WEB })
    expect(coveredBy(verdict)).toBe(
      '("@method" "@path" "@query" "authorization" "workload-identity-token" "dpop")',
    )
  })

  it('signs the second try anew, with the nonce in the proof', async () => {
    server.nonce = 'fresh'
    const { status, verdict } = await send('both', { method: 'POST', path: '/bound', body: 'hello' })
    server.nonce = undefined
    expect([status, verdict]).toMatchObject([200, { spiffeId: WEB, digest: true, size: 5 }])
  })

  it("never lets the caller's own signature pass", async () => {
    const headers = {
      'signature-input': 'evil=("@method");tag="wimse-workload-to-workload"',
      signature: 'evil=:AA==:',
      'workload-identity-token': 'a.b.c',
    }
    const { verdict } = await send('free', { headers })
    expect(verdict).toMatchObject({ spiffeId: WEB })
    expect(verdict.input).toMatch(/^wimse=/)
  })

  it.each([
    ['twice', { 'x-batch': ['7', '8'] }],
    ['with bytes that cannot be signed', { 'x-note': 'caf\u00e9' }],
  ])('refuses a header that is to be signed %s', async (_how, headers) => {
    expect(await send('free', { headers })).toMatchObject({ status: 400, reason: 'header_refused' })
  })

  it('is refused while WITs are off', async () => {
    expect(await send('free', { socket: without.socket })).toMatchObject({ reason: 'unimplemented' })
  })

  it('keeps its key apart from the other purposes: the WIT names it, and no proof does', async () => {
    await send('both', { path: '/bound' })
    const got = server.requests.at(-1)?.headers
    const part = (token: unknown, at: number) =>
      JSON.parse(Buffer.from(String(token).split('.')[at] ?? '', 'base64url').toString())
    expect(part(got?.['workload-identity-token'], 1).cnf.jwk.x).not.toBe(part(got?.['dpop'], 0).jwk.x)
  })
})

describe('the body of a signed request', () => {
  const big = randomBytes(300_000)
  const post = (sending: Sending) => send('free', { method: 'POST', ...sending })

  it('is digested by the agent up to the buffer, chunked or not', async () => {
    for (const headers of [{ 'content-length': '60000' }, { 'transfer-encoding': 'chunked' }])
      expect((await post({ headers, body: big.subarray(0, 60_000) })).verdict).toMatchObject({
        spiffeId: WEB,
        digest: true,
        size: 60_000,
      })
  })

  it('is read though the caller waits for 100 Continue', async () => {
    const headers = { expect: '100-continue', 'content-length': '5' }
    expect((await post({ headers, body: 'hello' })).verdict).toMatchObject({ digest: true, size: 5 })
  })

  it('is refused beyond the buffer without a digest, and the target hears nothing of it', async () => {
    const before = server.requests.length
    expect(await post({ body: big })).toMatchObject({ status: 411, reason: 'digest_required' })
    expect(server.requests.length).toBe(before)
  })

  it('streams beyond the buffer with a digest of the caller', async () => {
    const headers = { 'content-digest': `sha-512=:${createHash('sha512').update(big).digest('base64')}:` }
    const { verdict } = await post({ headers, body: big })
    expect(verdict).toMatchObject({ spiffeId: WEB, digest: true, size: big.length })
    expect(verdict.input).toMatch('"content-digest"')
  })

  it.each([
    ['short', Buffer.from('hello')],
    ['long', big],
  ])('that is %s and not as its digest says never arrives whole', async (_how, body) => {
    const before = cutOff.length
    const headers = {
      'content-digest': digestOf(Buffer.from('other')),
      'content-length': String(body.length),
    }
    expect(await post({ headers, body })).toMatchObject({ status: 400, reason: 'digest_mismatch' })
    await expect.poll(() => cutOff.length).toBe(before + 1)
    expect(cutOff.at(-1)).toBeLessThan(body.length)
  })

  it('is signed anew where a redirect leads, with its digest', async () => {
    const body = big.subarray(0, 60_000)
    for (const headers of [{}, { 'content-digest': digestOf(body) }]) {
      const got = await send('moving', { method: 'POST', path: '/moved', headers, body })
      expect(got.verdict).toMatchObject({ spiffeId: WEB, digest: true, size: body.length })
    }
  })

  it('that is missing has the digest of nothing, or none', async () => {
    const digest = digestOf(Buffer.alloc(0))
    expect((await send('free', { headers: { 'content-digest': digest } })).verdict).toMatchObject({
      digest: true,
    })
    const wrong = { 'content-digest': digestOf(Buffer.from('x')) }
    expect(await send('free', { headers: wrong })).toMatchObject({ status: 400, reason: 'digest_mismatch' })
  })

  it.each([
    ['of a broken algorithm', 'md5=:sQqNsWTgdUEFt6mb5y4/5Q==:'],
    ['of no form', 'secret'],
    ['said twice', [digestOf(Buffer.from('hello')), digestOf(Buffer.from('hello'))]],
  ])('is refused with a digest %s', async (_how, value) => {
    const got = await post({ headers: { 'content-digest': value }, body: 'hello' })
    expect(got).toMatchObject({ status: 400, reason: 'header_refused' })
    expect(JSON.stringify(got)).not.toMatch('secret')
  })
})

describe('headers of a signed request that an application sends itself', () => {
  const ID = 'spiffe://dev.holdfast.test/shop'
  let dir: string
  let agent: TestAgent
  let client: RawClient

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'holdfast-signatures-'))
    writeFileSync(join(dir, 'ca.pem'), ca.pem)
    agent = await startAgent({ policy: policy() })
    client = new RawClient(agent.socket)
    const bundles = client.open('SpiffeWorkloadAPI/FetchWITBundles', {})
    const [text] = Object.values((await bundles.message(1)).bundles) as string[]
    bundles.cancel()
    bundleOf = (trustDomain) => parseBundle(text ?? '', trustDomain)
  })

  afterAll(async () => {
    client?.[Symbol.dispose]()
    await agent?.[Symbol.asyncDispose]()
    rmSync(dir, { recursive: true, force: true })
    bundleOf = () => authority.bundle.get()
  })

  function policy(): Readonly<Record<string, string>> {
    const uid = process.getuid?.() ?? 0
    const rest = 'custody: headers, server: none, tokenless: true, max_ttl: 5m'
    return {
      'identity.yaml': `layer: identity
entries:
  - { name: shop, spiffe_id: ${ID}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
  - { name: signed, ${rest}, binding: [http-signature] }
  - { name: proven, ${rest}, binding: [dpop] }
`,
      'platform.yaml': `layer: platform
targets:
  - { name: signed, origins: ['https://localhost:${port}'], tls: { trust: { file: ${join(dir, 'ca.pem')} } }, addresses: [127.0.0.1] }
  - { name: proven, origins: ['https://proven.example.org'] }
`,
      'application.yaml': `layer: application
targets:
  - { name: signed, grants: [{ callers: [${ID}], methods: ['*'], paths: [/judge], signed_headers: [content-type, x-batch] }] }
  - { name: proven, grants: [{ callers: [${ID}], methods: ['*'], paths: [/**] }] }
`,
    }
  }

  const url = () => `https://localhost:${port}/judge?a=1`
  const ask = (more: object) =>
    call(agent.socket, 'POST', '/v1/headers', { body: { method: 'GET', url: url(), ...more } })

  /** Sends a request with the headers that the agent gave, as an application does. */
  function sendWith(headers: object, method: string, body?: string): Promise<Verdict> {
    return new Promise((resolve, reject) => {
      const options = {
        method,
        ca: ca.pem,
        headers: { ...headers, 'content-length': String(body?.length ?? 0) },
      }
      const sent = sendHttps(url(), options, (response) => {
        let text = ''
        response.on('data', (part: Buffer) => {
          text += part
        })
        response.on('end', () => resolve(JSON.parse(text)))
      })
      sent.on('error', reject)
      sent.end(body)
    })
  }

  it('verify at the target, with what the application had signed', async () => {
    const signed = { 'content-type': 'application/json', 'x-batch': '7' }
    const digest = digestOf(Buffer.from('{}'))
    const { status, body } = await ask({ method: 'POST', signed_headers: signed, content_digest: digest })
    expect(status).toBe(200)
    expect(Object.keys(body.headers).sort()).toEqual([
      'content-digest',
      'signature',
      'signature-input',
      'workload-identity-token',
    ])
    const verdict = await sendWith({ ...body.headers, ...signed }, 'POST', '{}')
    expect(verdict).toMatchObject({ spiffeId: ID, digest: true })
    expect(coveredBy(verdict)).toMatch('"content-type" "content-digest" "workload-identity-token" "x-batch"')
    const changed = await sendWith({ ...body.headers, ...signed, 'x-batch': '8' }, 'POST', '{}')
    expect(changed.reason).toBe('proof_forged')
  })

  it('are the same over gRPC', async () => {
    const message = {
      method: 'PUT',
      url: url(),
      signed_headers: { 'x-batch': '7' },
      content_digest: digestOf(Buffer.from('x')),
    }
    const { headers } = await client.unary('holdfast.v1.ProofService/RequestHeaders', message)
    expect(await sendWith({ ...headers, 'x-batch': '7' }, 'PUT', 'x')).toMatchObject({
      spiffeId: ID,
      digest: true,
    })
  })

  it('want the digest of the body where the method takes one', async () => {
    const answer = await ask({ method: 'POST' })
    expect([answer.status, answer.body.error.reason]).toEqual([411, 'digest_required'])
    expect((await ask({ method: 'POST', content_digest: digestOf(Buffer.alloc(0)) })).status).toBe(200)
    expect((await ask({ method: 'DELETE' })).status).toBe(200)
  })

  it('cover no header that the grant does not list: it names the layer that could', async () => {
    const { body } = await ask({ signed_headers: { 'x-secret': '1' } })
    expect(body.error).toMatchObject({ reason: 'policy_denied', owner: 'application' })
    expect(body.error.action).toMatch(/^Add x-secret to signed_headers at .*application\.yaml:3\.$/)
  })

  it.each([
    ['a line break', { signed_headers: { 'x-batch': 'secret\r\nx-admin: 1' } }],
    ['a line feed', { signed_headers: { 'x-batch': 'secret\n"@method": GET' } }],
    ['a NUL', { signed_headers: { 'x-batch': 'secret\0' } }],
    ['a blank at its end', { signed_headers: { 'x-batch': 'secret ' } }],
    ['a byte beyond ASCII', { signed_headers: { 'x-batch': 'secr\u00e9t' } }],
    ['over 4 KiB', { signed_headers: { 'x-batch': 'secret'.repeat(1000) } }],
    ['a number', { signed_headers: { 'x-batch': 7 } }],
    ['two values', { signed_headers: { 'x-batch': ['secret', '8'] } }],
    ['a name in upper case', { signed_headers: { 'X-Batch': 'secret' } }],
    ['a name with a line break', { signed_headers: { 'x-batch\nsecret': '7' } }],
    ['a derived component', { signed_headers: { '@method': 'secret' } }],
    [
      '33 names',
      { signed_headers: Object.fromEntries(Array.from({ length: 33 }, (_, at) => [`x-${at}`, '1'])) },
    ],
    ['a list', { signed_headers: ['secret'] }],
    ['a digest of no form', { content_digest: 'secret' }],
    ['a digest with another line', { content_digest: `${digestOf(Buffer.alloc(0))}\r\nsecret: 1` }],
    ['a broken digest', { content_digest: 'md5=:sQqNsWTgdUEFt6mb5y4/5Q==:' }],
  ])('are refused with %s, and the answer shows no value', async (_what, more) => {
    const { status, body } = await ask(more)
    expect([status, body.error.reason]).toEqual([400, 'invalid_request'])
    expect(JSON.stringify(body)).not.toMatch('secret')
  })

  it('are refused with one name twice', async () => {
    const text = `{"method":"GET","url":"${url()}","signed_headers":{"x-batch":"7","x-batch":"8"}}`
    const headers = { host: 'agent', 'workload.spiffe.io': 'true', 'content-type': 'application/json' }
    const status = await new Promise((resolve, reject) => {
      const options = { socketPath: agent.socket, method: 'POST', path: '/v1/headers', headers }
      const sent = sendHttp(options, (response) => resolve(response.resume().statusCode))
      sent.on('error', reject)
      sent.end(text)
    })
    expect(status).toBe(400)
  })

  it('are not signed where the target does not take signatures: asking for it is refused', async () => {
    const other = { url: 'https://proven.example.org/x' }
    expect((await ask(other)).status).toBe(200)
    for (const more of [
      { signed_headers: { 'x-batch': '7' } },
      { content_digest: digestOf(Buffer.alloc(0)) },
    ])
      expect((await ask({ ...other, ...more })).body.error.reason).toBe('invalid_request')
  })
})
