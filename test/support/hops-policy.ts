/** What the nodes of the chain are told: policy of its routes and targets, and the configuration of its gateway. */

/** Audiences; the last three name tokens of the first with other lives. */
export const AUDIENCES = {
  orders: 'https://orders.example.org',
  stock: 'https://stock.example.org',
  short: 'https://orders.example.org/short',
  long: 'https://orders.example.org/long',
  steady: 'https://orders.example.org/steady',
} as const

export const SHOP = 'spiffe://example.org/shop'
export const SERVICE_B = 'spiffe://example.org/b'
/** The replay lab, on the node of the application. */
const LAB = 'spiffe://example.org/lab'
/** What the gateway connects to services from: so they know it. */
export const GATEWAY_ADDRESS = '127.0.0.2'

export interface PolicyPlaces {
  readonly issuer: string
  readonly caFile: string
  /** What the node is at the authorization server. */
  readonly client: { readonly id: string; readonly keyFile: string }
  /** Public origins of the gateway, the good one first. */
  readonly origins: readonly [string, ...string[]]
  /** Where service C is. */
  readonly stock: readonly [string, ...string[]]
  readonly programs: { readonly app: string; readonly service: string; readonly gateway: string }
}

/** By name of file. */
export function chainPolicy(places: PolicyPlaces): Readonly<Record<string, string>> {
  return {
    'identity.yaml': identityOf(places),
    'platform.yaml': platformOf(places),
    'application.yaml': applicationOf(isHome(places)),
  }
}

const isHome = ({ client }: PolicyPlaces) => client.id === 'shop'

function identityOf(places: PolicyPlaces): string {
  const { issuer, client, programs } = places
  const server = `  - { name: login, issuer: ${issuer}, client: { id: ${client.id}, auth: private_key_jwt, key: { file: ${client.keyFile} } } }\n`
  const entry = (
    name: string,
    id: string,
    program: string,
    deliver = 'x509: false, jwt: true, wit: false }',
  ) =>
    `  - { name: ${name}, spiffe_id: ${id}, selectors: ['unix:uid:${process.getuid?.() ?? 0}', 'unix:path:${program}'], deliver: { ${deliver} }\n`
  const route = (name: string, audience: string, more: string) =>
    `  - { name: ${name}, servers: [login], audience: ['${audience}'], binding: [dpop], ${more} }\n`
  const target = (name: string, rest: string) =>
    `  - { name: ${name}, server: login, scopes: [read], custody: nothing, max_ttl: 5m, ${rest} }\n`
  const exchange = `exchange: { subjects: ['${issuer}'], audiences: ['${AUDIENCES.orders}'], actor: jwt_svid }`
  return [
    'layer: identity\nservers:\n',
    server,
    'entries:\n',
    entry('shop', SHOP, programs.app),
    isHome(places)
      ? entry('lab', LAB, programs.service, 'x509: false, jwt: false, wit: false }, probe: true')
      : entry('b', SERVICE_B, programs.service),
    'targets:\n',
    target('orders', `resource: '${AUDIENCES.orders}'`),
    target('stock', `resource: '${AUDIENCES.stock}', ${exchange}`),
    'routes:\n',
    route('orders', AUDIENCES.orders, 'max_ttl: 10m, hand_out: handle'),
    route('open', AUDIENCES.orders, 'max_ttl: 10m'),
    route('lax', AUDIENCES.orders, 'max_ttl: 2d'),
    route('nonces', AUDIENCES.orders, 'max_ttl: 10m, nonce: required'),
    route('guarded', AUDIENCES.orders, 'max_ttl: 10m'),
    route('stock', AUDIENCES.stock, 'max_ttl: 10m, act_depth: 1'),
  ].join('')
}

function platformOf({ issuer, caFile, origins, stock, programs }: PolicyPlaces): string {
  const trust = `tls: { trust: { file: ${caFile} } }, addresses: [127.0.0.1, '::1']`
  const list = (items: readonly string[]) => `[${items.map((item) => `'${item}'`).join(', ')}]`
  const target = (name: string, origin: string) => `  - { name: ${name}, origins: ['${origin}'], ${trust} }\n`
  const open = `received: /v1, public: /orders/v1, verifiers: ['${SERVICE_B}']`
  const behind = `${open}, hops: [{ name: gateway, addresses: [${GATEWAY_ADDRESS}/32] }]`
  return [
    'layer: platform\ntargets:\n',
    target('orders', origins[0]),
    target('stock', stock[0]),
    `servers:\n  - { issuer: ${issuer}, ${trust} }\n`,
    'routes:\n',
    `  - { name: orders, origins: ${list(origins)}, ${behind} }\n`,
    `  - { name: open, origins: ${list(origins)}, ${open} }\n`,
    `  - { name: lax, origins: ${list(origins)}, ${behind} }\n`,
    `  - { name: nonces, origins: ${list(origins)}, ${behind} }\n`,
    `  - { name: guarded, origins: ${list(origins)}, received: /guarded, public: /guarded, verifiers: ['unix:path:${programs.gateway}'] }\n`,
    `  - { name: stock, origins: ${list(stock)}, verifiers: ['${SERVICE_B}'] }\n`,
  ].join('')
}

const grant = (callers: string, paths: string) =>
  `grants: [{ callers: [${callers}], methods: [GET, HEAD, POST], paths: [${paths}] }]`
const routeGrant = (callers: string, paths: string) =>
  grant(callers, paths).replace(' }]', ', scopes: [read] }]')
/** The app itself, and the client that the probe has. */
const CLIENTS = "'client:login/shop', 'client:login/web'"

function applicationOf(hasLab: boolean): string {
  const app = grant(SHOP, '/orders/v1/**, /guarded/**')
  const lab = `, { callers: [${LAB}], methods: [GET, HEAD], paths: [/orders/v1/**], probe: true }]`
  return `layer: application
targets:
  - { name: orders, ${hasLab ? app.replace(/\]$/, lab) : app} }
  - { name: stock, ${grant(SERVICE_B, '/v1/**')} }
routes:
  - { name: orders, ${routeGrant(CLIENTS, '/orders/v1/**')} }
  - { name: open, ${routeGrant(CLIENTS, '/orders/v1/**')} }
  - { name: lax, ${routeGrant(CLIENTS, '/orders/v1/**')} }
  - { name: nonces, ${routeGrant(CLIENTS, '/orders/v1/**')} }
  - { name: guarded, ${routeGrant(CLIENTS, '/guarded/**')} }
  - { name: stock, ${routeGrant("'client:login/b', 'client:login/web'", '/v1/**')} }
`
}

export interface GatewayServer {
  readonly port: number
  readonly servicePort: number
  /** Directives of this server's location, such as a cache. */
  readonly more: string
}

export interface GatewayFiles {
  readonly ca: string
  readonly certificate: string
  readonly key: string
  /** The verifier's socket of the gateway's own node. */
  readonly verifier: string
}

/** Headers that say who somebody is: of callers, they are removed. */
const IDENTITY = [
  'X-Forwarded-User',
  'X-Remote-User',
  'Remote-User',
  'X-Auth-Request-User',
  'X-User-Id',
  'X-Forwarded-Client-Cert',
  'X-Holdfast-Caller',
  'X-Holdfast-Subject',
  'X-Holdfast-Scopes',
  'X-Holdfast-Handle',
]

/** Ends TLS, rewrites `/orders/v1` to `/v1`, and asks about `/guarded` itself. */
export function gatewayServer({ port, servicePort, more }: GatewayServer, files: GatewayFiles): string {
  const clean = IDENTITY.map((name) => `      proxy_set_header ${name} "";\n`).join('')
  const passing = `proxy_bind ${GATEWAY_ADDRESS};
      proxy_http_version 1.1;
      proxy_ssl_verify on;
      proxy_ssl_name localhost;
      proxy_ssl_trusted_certificate ${files.ca};
`
  return `  server {
    listen 127.0.0.1:${port} ssl;
    server_name localhost;
    ssl_certificate ${files.certificate};
    ssl_certificate_key ${files.key};
    location /orders/v1/ {
      ${passing}${clean}      ${more}
      proxy_pass https://127.0.0.1:${servicePort}/v1/;
    }
${guarded(files.verifier)}  }
`
}

/** As the documentation of forward-auth says; the application behind answers with the headers that it got. */
function guarded(verifier: string): string {
  return `    location = /_holdfast {
      internal;
      proxy_pass http://unix:${verifier}:/v1/forward-auth/guarded?peer=address;
      proxy_pass_request_body off;
      proxy_set_header Host localhost;
      proxy_set_header Content-Length "";
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Original-URI $request_uri;
      proxy_set_header X-Original-Address $remote_addr;
    }
    location /guarded/ {
      auth_request /_holdfast;
      auth_request_set $holdfast_caller $upstream_http_x_holdfast_caller;
      auth_request_set $holdfast_subject $upstream_http_x_holdfast_subject;
      auth_request_set $holdfast_nonce $upstream_http_dpop_nonce;
      add_header DPoP-Nonce $holdfast_nonce always;
      default_type application/json;
      proxy_bind ${GATEWAY_ADDRESS};
      proxy_set_header X-Holdfast-Caller $holdfast_caller;
      proxy_set_header X-Holdfast-Subject $holdfast_subject;
      proxy_set_header Authorization "";
      proxy_set_header DPoP "";
      proxy_pass http://application;
    }
`
}
