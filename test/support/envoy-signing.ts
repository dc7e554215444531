/** Requests that an Envoy signs with the agent's help: a real authorization server, a target that wants DPoP, the agent. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startAgent, type TestAgent } from './agent.ts'
import { makeClient } from './client-key.ts'
import { startIssuer, type TestIssuer } from './issuer.ts'
import { type ResourceServer, startResourceServer } from './resource-server.ts'
import { makeTestCa } from './tls.ts'

export const ID = 'spiffe://dev.holdfast.test/shop'
const RESOURCE = 'https://orders.example.org/'

/** Parts that run. */
export interface SigningRig extends AsyncDisposable {
  readonly dir: string
  /** Roots of the target's certificate, in PEM. */
  readonly caFile: string
  readonly issuer: TestIssuer
  readonly orders: ResourceServer
  readonly agent: TestAgent
  /** Policy in which the custody of the target is `custody`. */
  policy(custody: 'nothing' | 'headers'): Readonly<Record<string, string>>
}

/** Starts them: the target `orders` lets its callers hold headers. */
export async function startSigningRig(): Promise<SigningRig> {
  const ca = makeTestCa()
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-signing-'))
  const caFile = join(dir, 'ca.pem')
  const { client, pem } = makeClient()
  writeFileSync(join(dir, 'client.pem'), pem, { mode: 0o600 })
  writeFileSync(caFile, ca.pem)
  const issuer = await startIssuer({
    ca,
    nonces: true,
    clients: [client],
    resources: { [RESOURCE]: { scopes: ['orders'], format: 'jwt' } },
  })
  const orders = await startResourceServer({ ca })
  const policy = (custody: string) => policyOf({ custody, dir, issuer: issuer.issuer, port: orders.port })
  const agent = await startAgent({ policy: policy('headers') })
  return {
    dir,
    caFile,
    issuer,
    orders,
    agent,
    policy,
    [Symbol.asyncDispose]: async () => {
      await agent[Symbol.asyncDispose]()
      await orders[Symbol.asyncDispose]()
      await issuer.stop()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

interface Places {
  readonly custody: string
  readonly dir: string
  readonly issuer: string
  readonly port: number
}

function policyOf({ custody, dir, issuer, port }: Places): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${join(dir, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  return {
    'identity.yaml': `layer: identity
servers:
  - name: login
    issuer: ${issuer}
    client: { id: shop, auth: private_key_jwt, key: { file: ${join(dir, 'client.pem')} } }
entries:
  - { name: shop, spiffe_id: ${ID}, selectors: ['unix:uid:${process.getuid?.() ?? 0}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
  - { name: orders, server: login, resource: '${RESOURCE}', scopes: [orders], custody: ${custody}, max_ttl: 5m }
`,
    'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://localhost:${port}'], ${trust} }
servers:
  - { issuer: ${issuer}, ${trust} }
`,
    'application.yaml': `layer: application
targets:
  - { name: orders, grants: [{ callers: [${ID}], methods: [GET, POST], paths: [/v1/**] }] }
`,
  }
}
