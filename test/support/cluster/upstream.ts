/** What pods call through egress: an authorization server and a resource server on this machine, and the policy that names them. */
import { makeClient } from '../client-key.ts'
import { startIssuer, type TestIssuer } from '../issuer.ts'
import { type Handler, type ResourceServer, startResourceServer } from '../resource-server.ts'
import { makeTestCa } from '../tls.ts'

const RESOURCE = 'https://orders.example.org/'
const NAMES = { issuer: 'login.cluster.test', orders: 'orders.cluster.test' }

/** Where the agent finds the files that the policy names. */
const SECRETS = '/etc/holdfast-secrets'

export interface Upstream extends AsyncDisposable {
  readonly issuer: TestIssuer
  readonly orders: ResourceServer
  /** Lines of /etc/hosts for the agent's pod. */
  readonly hosts: readonly { readonly ip: string; readonly hostnames: readonly string[] }[]
  /** Files below `/etc/holdfast-secrets`. */
  readonly secrets: Readonly<Record<string, string>>
  /** Policy files that let `callers` call `orders`; `entries` are lines of the identity file. */
  policy(entries: string, callers: readonly string[]): Readonly<Record<string, string>>
}

/** Answers with one line, and leaves the answer open. */
const open: Handler = (_request, response) => {
  response.writeHead(200, { 'content-type': 'text/plain' })
  response.write('begun\n')
}

/** Starts both at `address`, which pods reach. */
export async function startUpstream(address: string): Promise<Upstream> {
  const ca = makeTestCa()
  const { client, pem } = makeClient()
  const issuer = await startIssuer({
    ca,
    at: { name: NAMES.issuer, address },
    clients: [client],
    resources: { [RESOURCE]: { scopes: ['orders'], format: 'jwt', ttlSeconds: 120 } },
  })
  const orders = await startResourceServer({
    ca,
    at: { name: NAMES.orders, address },
    handlers: { '/v1/open': open },
  })
  const trust = `tls: { trust: { file: ${SECRETS}/ca.pem } }`
  const asClient = `client: { id: shop, auth: private_key_jwt, key: { file: ${SECRETS}/client.pem } }`
  return {
    issuer,
    orders,
    hosts: [{ ip: address, hostnames: Object.values(NAMES) }],
    secrets: {
      'ca.pem': ca.pem,
      'client.pem': pem,
    },
    policy: (entries, callers) => ({
      'identity.yaml': `layer: identity
servers:
  - { name: login, issuer: ${issuer.issuer}, ${asClient} }
entries:
${entries}targets:
  - { name: orders, server: login, resource: '${RESOURCE}', scopes: [orders], custody: nothing, max_ttl: 5m }
`,
      'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://${NAMES.orders}:${orders.port}'], ${trust} }
servers:
  - { issuer: ${issuer.issuer}, ${trust} }
`,
      'application.yaml': `layer: application
targets:
  - { name: orders, grants: [{ callers: [${callers.join(', ')}], methods: [GET], paths: [/v1/**] }] }
`,
      'security.yaml': 'layer: security\n',
    }),
    [Symbol.asyncDispose]: async () => {
      await orders[Symbol.asyncDispose]()
      await issuer.stop()
    },
  }
}
