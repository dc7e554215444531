/** Bodies of signed requests that come in through a real Envoy: what it shows of them is what was signed, or nothing gets through. */
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { digestOf } from '../../../src/proof/content-digest.ts'
import { startAgent, type TestAgent } from '../../support/agent.ts'
import { call } from '../../support/call.ts'
import { freePort, hasEnvoy, startEnvoy, type TestEnvoy } from '../../support/envoy.ts'
import { envoySample } from '../../support/envoy-sample.ts'
import { until } from '../../support/until.ts'

const ID = 'spiffe://dev.holdfast.test/shop'
const URL = 'https://mesh.test/v1/items'
const UID = `unix:uid:${process.getuid?.() ?? 0}`
const POLICY = {
  'identity.yaml': `layer: identity
entries:
  - { name: shop, spiffe_id: ${ID}, selectors: ['${UID}'], deliver: { x509: false, jwt: false, wit: false } }
targets: [{ name: mesh, server: none, tokenless: true, custody: headers, binding: [http-signature] }]
routes: [{ name: mesh, binding: [http-signature] }]
`,
  'platform.yaml': `layer: platform
targets: [{ name: mesh, origins: ['https://mesh.test'] }]
routes: [{ name: mesh, origins: ['https://mesh.test'], verifiers: ['${UID}'] }]
`,
  'application.yaml': `layer: application
targets: [{ name: mesh, grants: [{ callers: ['${ID}'], methods: [GET, POST], paths: [/v1/**] }] }]
routes: [{ name: mesh, grants: [{ callers: ['${ID}'], methods: [GET, POST], paths: [/v1/**] }] }]
`,
}
const TEXT = Buffer.from('{"id":1,"name":"käse"}')
const BYTES = Buffer.from([0, 255, 254, 1, 128])
const LONG = Buffer.alloc(200, 'x')
const LIMIT = 100

/** What Envoy is told to show; undefined: nothing. */
type Shown = { pack?: boolean; partial?: boolean } | undefined

interface Way {
  readonly name: string
  readonly shown: Shown
  readonly required?: boolean
  /** Status by what is sent. */
  readonly right: number
  readonly bytes: number
  readonly other: number
  readonly long: number
  /** Added to a request that was signed without one: by HTTP/2, where it needs no length. */
  readonly added: number
}

const WAYS: readonly Way[] = [
  { name: 'as bytes', shown: { pack: true }, right: 200, bytes: 200, other: 400, long: 413, added: 400 },
  { name: 'as text', shown: {}, right: 200, bytes: 400, other: 400, long: 413, added: 400 },
  {
    name: 'in part',
    shown: { pack: true, partial: true },
    right: 200,
    bytes: 200,
    other: 400,
    long: 200,
    added: 400,
  },
  {
    name: 'in part, where all is required',
    shown: { pack: true, partial: true },
    required: true,
    right: 200,
    bytes: 200,
    other: 400,
    long: 411,
    added: 400,
  },
  { name: 'not at all', shown: undefined, right: 200, bytes: 200, other: 200, long: 200, added: 200 },
  {
    name: 'not at all, where all is required',
    shown: undefined,
    required: true,
    right: 411,
    bytes: 411,
    other: 411,
    long: 411,
    added: 200,
  },
]

// biome-ignore lint/suspicious/noExplicitAny: a configuration is data, whose members tests know.
type Any = any

describe.skipIf(!hasEnvoy)('bodies of signed requests', () => {
  let agent: TestAgent
  const arrived: Buffer[] = []
  const app = createServer(async (incoming, response) => {
    const parts: Buffer[] = []
    for await (const part of incoming) parts.push(part as Buffer)
    arrived.push(Buffer.concat(parts))
    response.end()
  })
  beforeAll(async () => {
    await once(app.listen(0, '127.0.0.1'), 'listening')
    let shift = 0
    const { now, monotonic } = systemClock
    const clock = { ...systemClock, now: () => now() + shift, monotonic: () => monotonic() + shift }
    agent = await startAgent({
      policy: POLICY,
      clock,
      config: (config) => ({ ...config, wit: 'on', verifier: { ...config.verifier, socket: 'on' } }),
    })
    // Past its start: before it, somebody may have sent these signatures already.
    shift = 8_000
  })
  afterAll(async () => {
    await agent?.[Symbol.asyncDispose]()
    app.closeAllConnections()
    app.close()
  })

  const start = async (port: number, { shown, required = false }: Way): Promise<TestEnvoy> => {
    const bootstrap: Any = envoySample('ingress-verify.yaml', {
      'address: 0.0.0.0, port_value: 8443': `address: 127.0.0.1, port_value: ${port}`,
      'port_value: 8080': `port_value: ${(app.address() as AddressInfo).port}`,
      '/run/holdfast/public/verifier.sock': agent.socket.replace('workload.sock', 'verifier.sock'),
      '/run/holdfast/public/workload.sock': agent.socket,
      'route: api': required ? 'route: mesh, body: required' : 'route: mesh',
    })
    const [chain] = bootstrap.static_resources.listeners[0].filter_chains
    delete chain.transport_socket
    const filter = chain.filters[0].typed_config.http_filters[0].typed_config
    if (shown) {
      const { pack = false, partial = false } = shown
      const settings = { max_request_bytes: LIMIT, pack_as_bytes: pack, allow_partial_message: partial }
      filter.with_request_body = settings
    }
    return startEnvoy(bootstrap)
  }

  /** Signed over `signed`, and sent with `sent`. */
  const send = async (port: number, signed: Buffer, sent = signed): Promise<number> => {
    const body = { method: 'POST', url: URL, content_digest: digestOf(signed) }
    const { body: made } = await call(agent.socket, 'POST', '/v1/headers', { body })
    const headers = { ...made.headers, 'content-length': sent.length }
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port, method: 'POST', path: '/v1/items', headers, agent: false }
      const out = request(options, (response) => {
        response.resume().once('end', () => resolve(response.statusCode ?? 0))
      })
      out.once('error', reject).end(sent)
    })
  }

  /** A GET, signed as one without a body, with one that somebody in between put in. */
  const sendAdded = async (port: number, more = {}): Promise<number> => {
    const { body: made } = await call(agent.socket, 'POST', '/v1/headers', {
      body: { method: 'GET', url: URL },
    })
    const session = connect(`http://127.0.0.1:${port}`)
    try {
      const pseudo = { ':method': 'GET', ':path': '/v1/items', ':authority': 'mesh.test' }
      const stream = session.request({ ...pseudo, ...made.headers, ...more }, { endStream: false })
      stream.end(LONG)
      const [{ ':status': status = 0 }] = (await once(stream, 'response')) as [{ ':status'?: number }]
      return status
    } finally {
      session.destroy()
    }
  }

  it.each(WAYS.map((way) => [way.name, way] as const))('that Envoy shows %s', async (_name, way) => {
    const port = await freePort()
    await using _envoy = await start(port, way)
    await until('the listener', () => send(port, TEXT).catch(() => undefined))
    arrived.length = 0
    const statuses = {
      right: await send(port, TEXT),
      bytes: await send(port, BYTES),
      other: await send(port, TEXT, Buffer.from(TEXT.toString().replace('1', '2'))),
      long: await send(port, LONG),
      added: await sendAdded(port),
      addedWithLength: await sendAdded(port, { 'content-length': LONG.length }),
    }
    const { right, bytes, other, long, added } = way
    expect(statuses).toEqual({ right, bytes, other, long, added, addedWithLength: 400 })
    expect(arrived).toHaveLength(Object.values(statuses).filter((status) => status === 200).length)
  })
})
