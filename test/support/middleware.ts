/** The shop's routes of `verifier.ts` as options of the middleware, and the issuer whose keys they are verified with. */
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { type Bundle, formatBundle } from '../../src/spiffe/bundle.ts'
import { publicJwkOf } from '../../src/spiffe/jwk.ts'
import { makeVerifier, type RequestVerifier } from '../../src/verify/create.ts'
import type { LocalOptions, RouteOptions, ServerOptions } from '../../src/verify/options.ts'
import { ca } from './middleware-servers.ts'
import { bundleOfKeys } from './tokens.ts'
import type { TestVerifier } from './verifier.ts'

const WEB = ['client:login/web']
const MESH = ['spiffe://example.org/web']
const AUDIENCE = ['https://api.example.org']
const ALL = { methods: ['*'], paths: ['/**'] }

export const ROUTE_OPTIONS = {
  api: {
    name: 'api',
    origins: ['https://api.example.org'],
    received: '/v1',
    public: '/orders/v1',
    servers: ['login'],
    audience: AUDIENCE,
    binding: ['dpop', 'mtls'],
    maxTtl: 600,
    actDepth: 1,
    grants: [
      { callers: WEB, methods: ['GET', 'POST'], paths: ['/orders/v1/**'], scopes: ['read'] },
      { callers: WEB, methods: ['DELETE'], paths: ['/orders/v1/**'], scopes: ['write'] },
    ],
  },
  mesh: {
    name: 'mesh',
    origins: ['https://mesh.example.org'],
    servers: [],
    binding: ['wpt', 'mtls'],
    grants: [{ callers: MESH, ...ALL }],
  },
  svid: {
    name: 'svid',
    origins: ['https://svid.example.org'],
    servers: [],
    audience: ['api'],
    binding: ['jwt_svid'],
    grants: [{ callers: MESH, ...ALL }],
  },
  open: {
    name: 'open',
    origins: ['https://api.example.org'],
    servers: ['login'],
    audience: AUDIENCE,
    binding: ['dpop', 'bearer'],
    grants: [{ callers: WEB, ...ALL }],
    bearer: { approver: 'sec', until: '2030-01-01', clients: ['web'], maxTtl: 120, rate: 3 },
  },
  strict: {
    name: 'strict',
    origins: ['https://api.example.org'],
    servers: ['login'],
    audience: AUDIENCE,
    nonce: 'required',
    hops: [{ name: 'gateway', spiffeId: 'spiffe://example.org/gateway', certificate: 'client_cert' }],
    grants: [{ callers: WEB, ...ALL }],
  },
} as const satisfies Readonly<Record<string, RouteOptions>>

/** A server of documents over TLS on loopback; `documents` may be changed, and counts are by path. */
export interface DocumentServer extends AsyncDisposable {
  readonly origin: string
  readonly documents: Map<string, { status?: number; headers?: Record<string, string>; body?: string }>
  readonly asked: string[]
}

export async function openDocuments(): Promise<DocumentServer> {
  const documents: DocumentServer['documents'] = new Map()
  const asked: string[] = []
  const server = createServer(ca.serverFiles(), (request, response) => {
    asked.push(request.url ?? '')
    const document = documents.get(request.url ?? '')
    // One without a body never answers.
    if (document && document.body === undefined) return
    response.writeHead(document ? (document.status ?? 200) : 404, document?.headers)
    response.end(document?.body)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    origin: `https://localhost:${(server.address() as AddressInfo).port}`,
    documents,
    asked,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

/** The JWK Set of the test's issuer. */
export function jwksOf({ issuer }: TestVerifier): string {
  return JSON.stringify({ keys: [{ ...publicJwkOf(issuer.publicKey), kid: 'k1', use: 'sig' }] })
}

export interface Opened {
  readonly verifier: RequestVerifier
  /** The reasons that the application heard. */
  readonly heard: string[]
}

/** The middleware of one route at the clock of `v`, whose issuer's keys are at `keys`. */
export function openMiddleware(
  v: TestVerifier,
  keys: DocumentServer,
  route: keyof typeof ROUTE_OPTIONS,
  over: Partial<LocalOptions> = {},
): Opened {
  keys.documents.set('/jwks', { body: jwksOf(v) })
  const heard: string[] = []
  const login: ServerOptions = {
    name: 'login',
    issuer: 'https://login.example.org',
    jwksUri: `${keys.origin}/jwks`,
    ca: ca.pem,
  }
  const { servers: taken, ...options } = ROUTE_OPTIONS[route]
  const bundle: Bundle = {
    ...bundleOfKeys({ jwt: { j1: v.issuer }, wit: { w1: v.wit } }),
    x509Authorities: [ca.authority.der],
  }
  const text = formatBundle(bundle)
  const verifier = makeVerifier(
    {
      ...options,
      servers: taken.length > 0 ? [login] : [],
      bundleOf: (name) => (name === 'example.org' ? text : undefined),
      onRefused: ({ reason }) => heard.push(reason),
      ...over,
    } as LocalOptions,
    v.clock,
  )
  // What was made before the memory began is below its floor.
  v.clock.advance(20_000)
  return { verifier, heard }
}
