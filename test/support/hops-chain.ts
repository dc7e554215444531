/**
 * The whole chain on loopback with its own TLS: app, egress, nginx, service B, exchange, service C; a real
 * authorization server; a node with an agent for the app, and two for B. Each variant has a place of its own at the gateway.
 */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createPlainServer, type IncomingMessage, request as plainRequest } from 'node:http'
import { request } from 'node:https'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type LabKey, makeLabKey, readLabKey } from '../../src/probe/key.ts'
import { publicJwkOf, thumbprint } from '../../src/spiffe/jwk.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { type BuiltAgent, startBuiltAgent } from './built-agent.ts'
import { type HopService, startHopService, type Told, type Work } from './hop-service.ts'
import { AUDIENCES, chainPolicy, GATEWAY_ADDRESS, gatewayServer, type PolicyPlaces } from './hops-policy.ts'
import { startIssuer, type TestIssuer } from './issuer.ts'
import { startNginx, type TestNginx } from './nginx.ts'
import { type Flaw, fetched, requestToken } from './probed-service.ts'
import { first, RawClient } from './raw-client.ts'
import { openRedis, type TestRedis } from './redis.ts'
import { makeTestCa, type TestCa } from './tls.ts'
import { until } from './until.ts'

/** What is other than right on a way through the chain. */
export interface Variant {
  /** More directives of the gateway. */
  readonly gateway?: string
  /** Of service B. */
  readonly flaws?: readonly Flaw[]
  /** Whether the verifiers of both nodes are asked in turn. */
  readonly isSpread?: boolean
  /** Whether B has its flaws for the gateway alone, which it trusts to have checked. */
  readonly isGatewayTrusted?: boolean
  /** `open` may be called behind the gateway too. */
  readonly route?: 'orders' | 'open' | 'lax' | 'nonces'
  /** Whether B sends the token and proof of its caller on to a service C that takes them. */
  readonly forwards?: boolean
}

/** One way through the chain. */
export interface Way {
  /** As callers name it. */
  readonly url: string
  readonly guarded: string
  /** Service B itself. */
  readonly behind: string
  readonly service: HopService
}

export interface Chain<Name extends string> extends AsyncDisposable {
  readonly dir: string
  readonly ca: TestCa
  readonly issuer: TestIssuer
  /** The node of the application, and both of service B. */
  readonly nodes: readonly [app: BuiltAgent, near: BuiltAgent, far: BuiltAgent]
  readonly nginx: TestNginx
  readonly ways: Readonly<Record<Name, Way>>
  /** Service C, and one that takes what it should refuse. */
  readonly stock: HopService
  readonly careless: HopService
  /** The doors that the application and service B send through. */
  readonly egress: { readonly app: string; readonly b: string }
  file(name: string, text: string): string
  /** The key of the probe, and in a file. */
  readonly key: LabKey
  readonly keyFile: string
  /** A token bound to it that was revoked before the nodes started. */
  readonly revoked: string
  /** A real token of the client `web`, bound to `key`. */
  token(key: LabKey, audience?: keyof typeof AUDIENCES): Promise<string>
}

const SKEW = 1

/** Where the nodes remember proofs: each for itself, or at one Redis server. */
export type Replays = 'memory' | 'redis'

/** Opens it; proofs need no nonce any more. */
export async function openChain<Name extends string>(
  variants: Readonly<Record<Name, Variant>>,
  replays: Replays = 'memory',
): Promise<Chain<Name>> {
  const stack = new Closers()
  try {
    return await build(variants, groundOn(stack), replays)
  } catch (error) {
    await stack.close()
    throw error
  }
}

/** What was opened, ended in the other order. */
class Closers {
  readonly #closers: (() => unknown)[] = []

  use<T extends AsyncDisposable>(opened: T): T {
    this.defer(() => opened[Symbol.asyncDispose]())
    return opened
  }

  defer(close: () => unknown): void {
    this.#closers.unshift(close)
  }

  async close(): Promise<void> {
    for (const close of this.#closers.splice(0)) await close()
  }
}

/** What everything stands on. */
interface Ground {
  readonly dir: string
  readonly ca: TestCa
  readonly caFile: string
  readonly stack: Closers
  /** The nodes of service B, once they run. */
  readonly nodes: BuiltAgent[]
  redis?: TestRedis
  file(name: string, text: string, mode?: number): string
}

type Open<Name> = { readonly name: Name; readonly service: HopService; readonly port: number }

function groundOn(stack: Closers): Ground {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-hops-'))
  stack.defer(() => rmSync(dir, { recursive: true, force: true }))
  const file: Ground['file'] = (name, text, mode = 0o600) => {
    writeFileSync(join(dir, name), text, { mode })
    return join(dir, name)
  }
  const ca = makeTestCa()
  return { dir, ca, caFile: file('ca.pem', ca.pem, 0o644), stack, nodes: [], file }
}

async function build<Name extends string>(
  variants: Readonly<Record<Name, Variant>>,
  ground: Ground,
  replays: Replays,
): Promise<Chain<Name>> {
  const { ca, dir, file, stack } = ground
  const client = makeLabKey()
  const login = await startLogin(ground, client)
  const { issuer } = login
  stack.defer(() => issuer.stop())
  const token = (key: LabKey, audience: keyof typeof AUDIENCES = 'orders') =>
    requestToken({ ca, issuer, client, key, resource: AUDIENCES[audience] })
  const probe = probeKeyOn(ground)
  const revoked = await token(probe.key, 'steady')
  file('denied.jsonl', deniedLine(revoked), 0o644)
  if (replays === 'redis') await startRedis(ground)
  const { stock, careless, opened } = await startServices(ground, variants)
  const [one = '', ...others] = opened.map(({ port }) => `https://localhost:${port}`)
  const [home, near, far] = await startNodes(ground, {
    issuer: issuer.issuer,
    caFile: ground.caFile,
    origins: [one, ...others],
    stock: [stock.origin, careless.origin],
    programs: PROGRAMS,
  })
  login.actors = await jwtKeysOf(near)
  const nginx = await startGateway(ground, opened, variants)
  await pastTheFloor()
  return {
    dir,
    ca,
    issuer,
    nodes: [home, near, far],
    nginx,
    ways: Object.fromEntries(opened.map((way) => [way.name, wayOf(way)])) as Record<Name, Way>,
    stock,
    careless,
    egress: { app: socketOf(home, 'egress'), b: socketOf(near, 'egress') },
    file,
    ...probe,
    revoked,
    token,
    [Symbol.asyncDispose]: () => stack.close(),
  }
}

const PROGRAMS = {
  app: realpathSync('/usr/bin/curl'),
  service: realpathSync(process.execPath),
  gateway: '/usr/sbin/nginx',
}

function wayOf<Name>({ port, service }: Open<Name>): Way {
  return {
    url: `https://localhost:${port}/orders/v1/items`,
    guarded: `https://localhost:${port}/guarded/items`,
    behind: `${service.origin}/v1/items`,
    service,
  }
}

/** B once for each variant, since each has flaws of its own; C, and a C that takes what it should refuse. */
async function startServices<Name extends string>(
  { ca, nodes, stack }: Ground,
  variants: Readonly<Record<Name, Variant>>,
) {
  const verifiers = (isSpread: boolean) => () =>
    nodes.slice(0, isSpread ? 2 : 1).map((node) => socketOf(node, 'verifier'))
  const common = { ca, route: 'stock', verifiers: verifiers(false) }
  const stock = stack.use(await startHopService(common))
  const careless = stack.use(await startHopService({ ...common, flaws: ['any_audience', 'drops_proof'] }))
  const open = async (name: Name): Promise<Open<Name>> => {
    const {
      flaws = [],
      forwards,
      isGatewayTrusted,
      isSpread = false,
      route = 'orders',
    }: Variant = variants[name]
    const place = forwards ? { url: `${careless.origin}/v1/items`, ca } : undefined
    const work = workOf(() => socketOf(nodes[0], 'egress'), place)
    const service = await startHopService({
      ca,
      flaws,
      trusted: isGatewayTrusted ? GATEWAY_ADDRESS : undefined,
      route,
      work,
      verifiers: verifiers(isSpread),
    })
    return { name, service: stack.use(service), port: await freePort() }
  }
  return { stock, careless, opened: await Promise.all((Object.keys(variants) as Name[]).map(open)) }
}

function probeKeyOn({ file }: Ground): Pick<Chain<string>, 'key' | 'keyFile'> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = String(privateKey.export({ format: 'pem', type: 'pkcs8' }))
  const keyFile = file('probe.pem', pem)
  return { key: readLabKey(keyFile, pem), keyFile }
}

/** An item of a denylist. */
function deniedLine(token: string): string {
  const jti = parseJws(token)?.payload['jti']
  return `${JSON.stringify({ jti, until: '2099-01-01', reason: 'leaked' })}\n`
}

/** Over TLS, for all nodes: what one revokes the others hear of. */
async function startRedis(ground: Ground): Promise<void> {
  const { ca, caFile, file, stack } = ground
  const { cert, key } = ca.serverFiles()
  const tls = { cert: file('redis.pem', cert), key: file('redis-key.pem', key), ca: caFile }
  ground.redis = stack.use(await openRedis({ tls }))
}

async function startNodes({ dir, file, nodes, redis, stack }: Ground, places: Omit<PolicyPlaces, 'client'>) {
  const start = async (id: 'shop' | 'b', name: string) => {
    mkdirSync(join(dir, name), { mode: 0o755 })
    const policy = chainPolicy({ ...places, client: { id, keyFile: join(dir, `${id}.pem`) } })
    for (const [layer, text] of Object.entries(policy)) file(join(name, layer), text, 0o644)
    const store = redis ? `, replay: { store: redis, url: ${redis.tlsUrl}, ca_file: ca.pem }` : ''
    const config = file(`${name}.yaml`, configOf(name, store), 0o644)
    return stack.use(await startBuiltAgent({ args: ['--config', config] }))
  }
  const started = await Promise.all([start('shop', 'home'), start('b', 'near'), start('b', 'far')])
  nodes.push(started[1], started[2])
  return started
}

async function startGateway<Name extends string>(
  { ca, caFile, file, nodes, stack }: Ground,
  opened: readonly Open<Name>[],
  variants: Readonly<Record<Name, Variant>>,
): Promise<TestNginx> {
  const { cert, key } = ca.serverFiles()
  const files = {
    ca: caFile,
    certificate: file('gateway.pem', cert),
    key: file('gateway-key.pem', key),
    verifier: socketOf(nodes[0], 'verifier'),
  }
  const application = await startApplication()
  stack.defer(application.stop)
  const servers = opened.map(({ name, port, service }) => {
    const { gateway: more = '' }: Variant = variants[name]
    return gatewayServer({ port, servicePort: service.port, more }, files)
  })
  const http = `${MAPS}  upstream application { server 127.0.0.1:${application.port}; }\n${servers.join('')}`
  return stack.use(await startNginx(http, opened[0]?.port ?? 0))
}

function configOf(policy: string, store: string): string {
  return `trust_domain: example.org
policy: { files: [${policy}] }
egress: { socket: on }
verifier: { socket: on, skew: ${SKEW}s, nonce_life: 5s, denylist: { file: denied.jsonl }${store} }
`
}

function socketOf(node: BuiltAgent | undefined, door: 'egress' | 'verifier'): string {
  return join(node?.dir ?? '', 'public', `${door}.sock`)
}

/** For gateways that make another scheme of it. */
const MAPS = '  map $http_authorization $as_bearer { default ""; "~^DPoP (?<bare>.+)$" "Bearer $bare"; }\n'

/** A store that began a moment ago refuses older proofs for want of a nonce. */
async function pastTheFloor(): Promise<void> {
  const floor = Date.now() + (SKEW + 1) * 1000
  await until('the start of the verifiers to be past', () => Date.now() > floor)
}

/** The server, with its clients, its audiences and token exchange. */
async function startLogin({ ca, file }: Ground, web: LabKey) {
  const subjects: Record<string, KeyObject> = {}
  const login = { actors: [] as readonly KeyObject[] }
  const clientOf = (clientId: string) => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    file(`${clientId}.pem`, String(privateKey.export({ format: 'pem', type: 'pkcs8' })))
    const jwk = publicJwkOf(createPublicKey(privateKey))
    return { clientId, jwks: [{ ...jwk, kid: thumbprint(jwk) }], scopes: ['read'] }
  }
  const orders = { scopes: ['read'], audience: AUDIENCES.orders }
  const issuer = await startIssuer({
    ca,
    clients: [clientOf('shop'), clientOf('b'), { clientId: 'web', jwks: [web.publicJwk], scopes: ['read'] }],
    resources: {
      [AUDIENCES.orders]: orders,
      [AUDIENCES.stock]: { scopes: ['read'] },
      [AUDIENCES.short]: { ...orders, ttlSeconds: 1 },
      [AUDIENCES.long]: { ...orders, ttlSeconds: 86_400 },
      [AUDIENCES.steady]: { ...orders, ttlSeconds: 580 },
    },
    exchange: { subjects, actors: () => login.actors },
  })
  const { keys } = JSON.parse(
    await fetched(`${issuer.issuer}/jwks`, ca, { method: 'GET', headers: {}, body: '' }),
  )
  subjects[issuer.issuer] = createPublicKey({ key: keys[0], format: 'jwk' })
  return Object.assign(login, { issuer })
}

/** Whom the server believes about actors: the node's own JWT-SVIDs. */
async function jwtKeysOf(node: BuiltAgent): Promise<readonly KeyObject[]> {
  using client = new RawClient(node.socket)
  const { bundles } = await first(client, 'SpiffeWorkloadAPI/FetchJWTBundles')
  return Object.values(bundles as Record<string, Buffer>).flatMap((bundle) =>
    JSON.parse(bundle.toString()).keys.map((jwk: object) =>
      createPublicKey({ key: jwk as never, format: 'jwk' }),
    ),
  )
}

/** B answers itself, but for `/v1/through`: for that it asks C, on behalf of its caller. */
function workOf(egress: () => string, forwards: { url: string; ca: TestCa } | undefined): Work {
  return async (told, incoming) => {
    if (!incoming.url?.startsWith('/v1/through')) return [200, { from: 'b' }]
    return forwards ? passOn(forwards, incoming) : askStock(egress(), told)
  }
}

function askStock(socketPath: string, { handle = '' }: Told): ReturnType<Work> {
  const headers = { host: 'stock', 'holdfast-subject': handle }
  return answerOf(plainRequest({ socketPath, path: '/v1/items', headers, agent: false }))
}

function passOn({ url, ca }: { url: string; ca: TestCa }, { headers }: IncomingMessage): ReturnType<Work> {
  const { authorization = '', dpop = '' } = headers
  return answerOf(request(url, { ca: ca.pem, headers: { authorization, dpop: String(dpop) }, agent: false }))
}

async function answerOf(outgoing: ReturnType<typeof request>): ReturnType<Work> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.on('response', resolve).on('error', reject).end()
  })
  let text = ''
  for await (const chunk of response) text += chunk
  return [response.statusCode ?? 502, JSON.parse(text === '' ? '{}' : text)]
}

/** An application that trusts its gateway: it shows the headers that it got. */
async function startApplication() {
  const server = createPlainServer(({ headers }, response) => response.end(JSON.stringify(headers)))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const stop = () => {
    server.closeAllConnections()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  }
  return { port: (server.address() as AddressInfo).port, stop }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}
