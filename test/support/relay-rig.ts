/** An agent, a real authorization server and two targets: `orders`, which the agent connects to, and `stock`, via sidecar. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startAgent, type TestAgent } from './agent.ts'
import { makeClient } from './client-key.ts'
import { startIssuer } from './issuer.ts'
import { type ResourceOptions, type ResourceServer, startResourceServer } from './resource-server.ts'
import { makeTestCa } from './tls.ts'
import { until } from './until.ts'

export const ID = 'spiffe://dev.holdfast.test/shop'
const RESOURCE = 'https://orders.example.org/'

export interface RelayRig extends AsyncDisposable {
  /** For files of the test. */
  readonly dir: string
  readonly agent: TestAgent
  readonly egressSocket: string
  readonly orders: ResourceServer
  readonly stock: ResourceServer
  /** The policy, with `stock` as its platform line says: where it is, and how. */
  policy(stock?: string): Readonly<Record<string, string>>
}

export async function startRelayRig(options: Omit<ResourceOptions, 'ca'> = {}): Promise<RelayRig> {
  const ca = makeTestCa()
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-relay-'))
  const { client, pem } = makeClient()
  writeFileSync(join(dir, 'client.pem'), pem, { mode: 0o600 })
  writeFileSync(join(dir, 'ca.pem'), ca.pem)
  const issuer = await startIssuer({
    ca,
    clients: [client],
    resources: { [RESOURCE]: { scopes: ['orders'] } },
  })
  const [orders, stock] = await Promise.all([
    startResourceServer({ ca, ...options }),
    startResourceServer({ ca, ...options }),
  ])
  const trust = `tls: { trust: { file: ${join(dir, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  const policy = (more = `via: sidecar, ${trust}`) => ({
    'identity.yaml': `layer: identity
servers:
  - { name: login, issuer: ${issuer.issuer}, client: { id: shop, auth: private_key_jwt, key: { file: ${join(dir, 'client.pem')} } } }
entries:
  - { name: shop, spiffe_id: ${ID}, selectors: ['unix:uid:${process.getuid?.() ?? 0}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
  - { name: orders, server: login, resource: '${RESOURCE}', scopes: [orders], custody: nothing, max_ttl: 5m }
  - { name: stock, server: login, resource: '${RESOURCE}', scopes: [orders], custody: headers, max_ttl: 5m }
`,
    'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://localhost:${orders.port}'], ${trust} }
  - { name: stock, origins: ['https://localhost:${stock.port}'], ${more} }
servers:
  - { issuer: ${issuer.issuer}, ${trust} }
`,
    'application.yaml': `layer: application
targets:
  - { name: orders, grants: [{ callers: [${ID}], methods: ['*'], paths: [/**] }] }
  - { name: stock, grants: [{ callers: [${ID}], methods: ['*'], paths: [/v1/**, /echo] }] }
`,
  })
  const agent = await startAgent({
    policy: policy(),
    config: (config) => ({ ...config, egress: { ...config.egress, socket: 'on' } }),
  })
  return {
    dir,
    agent,
    egressSocket: join(agent.dir, 'public', 'egress.sock'),
    orders,
    stock,
    policy,
    [Symbol.asyncDispose]: async () => {
      await agent[Symbol.asyncDispose]()
      await orders[Symbol.asyncDispose]()
      await stock[Symbol.asyncDispose]()
      await issuer.stop()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** An answer as it came. */
export interface Heard {
  readonly status: number
  readonly head: string
  readonly text: string
  /** `Holdfast-Reason`; empty where the agent and its relays say nothing. */
  readonly reason: string
}

/** Sends bytes as they are on a connection of its own, and hears what comes until the other side closes. */
export async function tell(
  where: { readonly port: number } | { readonly path: string },
  bytes: string,
): Promise<Heard> {
  const socket: Socket = connect('port' in where ? { ...where, host: '127.0.0.1' } : where)
  let received = ''
  let isClosed = false
  socket.setEncoding('latin1')
  socket.on('data', (chunk) => {
    received += String(chunk)
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
  })
  socket.write(bytes)
  await until(`an answer to ${bytes.slice(0, 80)}`, () => isClosed)
  const [head = '', ...rest] = received.split('\r\n\r\n')
  const reason = /^holdfast-reason: (.*)$/im.exec(head)?.[1]?.trim() ?? ''
  return { status: Number(head.split(' ')[1] ?? 0), head, text: rest.join('\r\n\r\n'), reason }
}
