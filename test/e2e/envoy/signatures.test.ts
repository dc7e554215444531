/**
 * Requests that carry an HTTP message signature (RFC 9421, the WIMSE profile), made by the agent and sent by a real
 * Envoy: what arrives is verified by our verifier and by a second one.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { nowSeconds, systemClock } from '../../../src/base/clock.ts'
import { digestOf } from '../../../src/proof/content-digest.ts'
import { readSignature, verifySignature } from '../../../src/proof/httpsig-verify.ts'
import { WIMSE_RULES, WIMSE_TAG } from '../../../src/proof/wimse-signature.ts'
import { verifyWitSvid } from '../../../src/spiffe/witsvid.ts'
import { startAgent, type TestAgent } from '../../support/agent.ts'
import { hasEnvoy, type TestEnvoy } from '../../support/envoy.ts'
import { openSigning, sendBy } from '../../support/envoy-egress.ts'
import { type ResourceServer, startResourceServer } from '../../support/resource-server.ts'
import { isSigned } from '../../support/signed-request.ts'
import { makeTestCa } from '../../support/tls.ts'

const ID = 'spiffe://dev.holdfast.test/shop'
const PATH = '/v1/items'
const BODY = '{"id":1}'
const DIGEST = { 'content-digest': digestOf(Buffer.from(BODY)), 'content-type': 'application/json' }

const policyOf = (port: number, caFile: string) => ({
  'identity.yaml': `layer: identity
entries:
  - { name: shop, spiffe_id: ${ID}, selectors: ['unix:uid:${process.getuid?.() ?? 0}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
  - { name: orders, server: none, tokenless: true, custody: headers, binding: [http-signature] }
`,
  'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://localhost:${port}'], tls: { trust: { file: ${caFile} } }, addresses: [127.0.0.1, '::1'] }
`,
  'application.yaml': `layer: application
targets:
  - { name: orders, grants: [{ callers: [${ID}], methods: [GET, POST], paths: [/v1/**], signed_headers: [x-batch] }] }
`,
})

describe.skipIf(!hasEnvoy).each([
  ['at each try, by ext_proc', 'egress-signing.yaml'],
  ['once, by ext_authz', 'egress-check.yaml'],
])('requests signed %s', (_how, sample) => {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-signed-'))
  let agent: TestAgent
  let orders: ResourceServer
  let envoy: TestEnvoy
  let port: number

  beforeAll(async () => {
    const ca = makeTestCa()
    const caFile = join(dir, 'ca.pem')
    writeFileSync(caFile, ca.pem)
    const handlers = {
      [PATH]: (request: IncomingMessage, response: { end(): unknown }) =>
        request.resume().on('end', () => response.end()),
    }
    orders = await startResourceServer({ ca, handlers, open: [PATH] })
    agent = await startAgent({
      policy: policyOf(orders.port, caFile),
      config: (config) => ({ ...config, wit: 'on' }),
    })
    const shown = { '- { exact: holdfast-subject }': '- { exact: x-batch }' }
    ;({ envoy, port } = await openSigning(sample, { orders, agent, caFile }, shown))
  }, 300_000)
  afterAll(async () => {
    await envoy?.[Symbol.asyncDispose]()
    await agent?.[Symbol.asyncDispose]()
    await orders?.[Symbol.asyncDispose]()
    rmSync(dir, { recursive: true, force: true })
  })

  /** Whose signature the newest request carries, over what. Throws where it is none. */
  function verified() {
    const request = orders.requests.at(-1) as IncomingMessage
    const [path = '', query] = String(request.url).split('?')
    const now = nowSeconds(systemClock)
    const wit = verifyWitSvid(
      String(request.headers['workload-identity-token']),
      () => agent.authority.bundle.get(),
      now,
    )
    const message = {
      method: String(request.method),
      scheme: 'https',
      authority: `localhost:${orders.port}`,
      path,
      query: query === undefined ? '' : `?${query}`,
      headers: request.rawHeaders,
    } as const
    const received = readSignature(message, { tag: WIMSE_TAG })
    verifySignature(message, received, WIMSE_RULES, wit, now)
    const { nonce, 'wimse-aud': aud } = Object.fromEntries(received.parameters) as Record<
      string,
      { value: unknown }
    >
    const input = String(request.headers['signature-input'])
    return {
      spiffeId: wit.spiffeId,
      isSigned: isSigned(request, wit.key),
      aud: aud?.value,
      nonce: nonce?.value,
      input,
    }
  }

  it('are the workload’s, for their target, each with a nonce of its own', async () => {
    const seen = []
    for (const path of [`${PATH}?x=1`, PATH]) {
      expect((await sendBy(port, { path })).status).toBe(200)
      seen.push(verified())
    }
    const aud = `https://localhost:${orders.port}${PATH}`
    for (const each of seen) expect(each).toMatchObject({ spiffeId: ID, isSigned: true, aud })
    expect(seen[0]?.nonce).not.toBe(seen[1]?.nonce)
  })

  it('cover the body by its digest, its type, and what the grant lists', async () => {
    const headers = { ...DIGEST, 'x-batch': '7' }
    expect((await sendBy(port, { method: 'POST', body: BODY, headers })).status).toBe(200)
    const { input, isSigned: isTrue } = verified()
    expect(isTrue).toBe(true)
    for (const name of ['content-digest', 'content-type', 'x-batch']) expect(input).toContain(`"${name}"`)
  })

  it('lose what the application claims to have signed', async () => {
    const forged = {
      signature: 'wimse=:AAAA:',
      'signature-input': 'wimse=()',
      'workload-identity-token': 'forged',
    }
    expect((await sendBy(port, { headers: forged })).status).toBe(200)
    expect(verified()).toMatchObject({ spiffeId: ID, isSigned: true })
  })

  it('have no digest where they have no body', async () => {
    const headers = { 'content-length': '0' }
    expect((await sendBy(port, { method: 'POST', headers })).status).toBe(200)
    expect(verified()).toMatchObject({ spiffeId: ID, isSigned: true })
  })

  it.each(['POST', 'GET'])('are refused with a body that nobody has digested: %s', async (method) => {
    const before = orders.requests.length
    const headers = { 'content-length': String(BODY.length) }
    const { status, body } = await sendBy(port, { method, body: BODY, headers })
    expect([status, JSON.parse(body).error.reason]).toEqual([411, 'digest_required'])
    expect(orders.requests.length).toBe(before)
  })
})
