/** The egress door on a socket of its own, with attested callers, real TLS, and tokens that a test's issuer signs. */
import { randomUUID } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Attestation } from '../../src/attest/identify.ts'
import { type Clock, nowSeconds, systemClock } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import { Live } from '../../src/base/live.ts'
import { Secret } from '../../src/base/secret.ts'
import type { BindOptions } from '../../src/egress/bound.ts'
import type { Certificates } from '../../src/egress/certificates.ts'
import { Dialer } from '../../src/egress/dial.ts'
import { dialWith, type EgressDoor, type EgressSettings, openEgressDoor } from '../../src/egress/door.ts'
import { Resolver } from '../../src/egress/resolve.ts'
import { Subjects } from '../../src/egress/subjects.ts'
import type { TokenAsk, Tokens } from '../../src/egress/tokens.ts'
import { Trust } from '../../src/egress/trust.ts'
import { Vault } from '../../src/keys/vault.ts'
import type { RuleBook } from '../../src/policy/book.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import { Revocations } from '../../src/policy/revocations.ts'
import { openDoor } from '../../src/serve/door.ts'
import { OwnerLimits } from '../../src/serve/limits.ts'
import { openSocket } from '../../src/serve/socket-path.ts'
import { Turns } from '../../src/serve/turns.ts'
import { Admission } from '../../src/sign/admission.ts'
import { Approvals } from '../../src/sign/approvals.ts'
import type { Hook } from '../../src/sign/hook.ts'
import { Rates } from '../../src/sign/rate.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'
import { Health } from '../../src/telemetry/health.ts'
import { openMetrics } from '../../src/telemetry/metrics.ts'
import { AuditFolder } from './audit.ts'
import { ecPair } from './certificates.ts'
import { makeTestCa, type TestCa } from './tls.ts'
import { signToken } from './tokens.ts'

const TRUST_DOMAIN = 'example.org'

/** A target's place. */
export interface TestTarget {
  readonly origin: string
  /** More lines of its identity statement. */
  readonly identity?: string
  readonly paths?: string
  readonly methods?: string
  /** More members of its grant, such as `approval: {}`. */
  readonly grant?: string
  /** More members of its platform statement. */
  readonly platform?: string
}

export interface EgressOptions {
  readonly ca?: TestCa
  readonly targets: Readonly<Record<string, TestTarget>>
  /** uid by the path of a SPIFFE ID; `web` is this process when absent. */
  readonly users?: Readonly<Record<string, number>>
  readonly settings?: Partial<EgressSettings>
  readonly tokenSeconds?: number
  readonly audit?: 'refuse' | 'broken'
  /** A real token client in place of tokens that a test's issuer signs, and what policy says of its server. */
  readonly tokens?: Tokens
  readonly server?: string
  /** More of each entry. */
  readonly entry?: string
  /** What connections show, where targets are bound by it. */
  readonly certificates?: Pick<Certificates, 'current'>
  /** Makes WIT-SVIDs; `off` as an agent without them. */
  readonly wit?: BindOptions['heldWit'] | 'off'
  readonly clock?: Clock
  /** HTTP/2 requests at a time, of a connection and of a uid. */
  readonly streams?: number
  readonly calls?: number
  readonly hook?: Hook
}

/** A running door. */
export interface TestEgress extends AsyncDisposable {
  readonly socket: string
  readonly door: EgressDoor
  readonly attestation: Attestation
  readonly revocations: Revocations
  /** Requests that wait for a person. */
  readonly approvals: Approvals
  readonly records: () => readonly Record<string, unknown>[]
  readonly metrics: () => Promise<string>
  /** Token requests so far. */
  readonly asked: readonly TokenAsk[]
  /** Targets whose tokens were given up. */
  readonly dropped: readonly string[]
  setTargets(targets: Readonly<Record<string, TestTarget>>): Promise<void>
}

const SETTINGS: EgressSettings = {
  bufferKib: 64,
  connectTimeout: 2,
  responseTimeout: 5,
  idleTimeout: 10,
  connectionsPerTarget: 64,
}

export async function startEgress(options: EgressOptions): Promise<TestEgress> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-egress-'))
  chmodSync(dir, 0o755)
  const ca = options.ca ?? makeTestCa()
  writeFileSync(join(dir, 'ca.pem'), ca.pem, { mode: 0o644 })
  const clock = options.clock ?? systemClock
  const users = options.users ?? { web: process.getuid?.() ?? 0 }
  const load = (targets: EgressOptions['targets']) => bookOf(dir, { ...options, users, targets })
  const book = new Live<RuleBook>(await load(options.targets))
  const folder = new AuditFolder()
  const audit = folder.open({ clock })
  const metrics = openMetrics()
  const health = new Health()
  const attestation = new Attestation({ clock, book, health })
  const vault = new Vault({ clock, rotation: 3600 })
  const revocations = new Revocations(undefined, clock)
  const rates = new Rates(10_000, clock)
  const approvals = new Approvals(clock)
  const asked: TokenAsk[] = []
  const subjects = new Subjects({ clock, perInstance: 100, limit: 1_000 })
  const dropped: string[] = []
  const trust = new Trust({ clock, bundleOf: () => undefined })
  const dialer = new Dialer({ clock, resolver: new Resolver({ clock, own: () => [] }), trust })
  const door = openEgressDoor({
    book,
    vault,
    revocations,
    audit:
      options.audit === 'broken'
        ? {
            ...audit,
            append: () => {},
            check: () => {},
            commit: () => {
              throw new Fault('audit_unavailable')
            },
          }
        : audit,
    metrics,
    clock,
    rates,
    subjects,
    admission: new Admission({ book, rates, clock, approvals, hook: options.hook }),
    tokens: options.tokens ?? fakeTokens(asked, dropped, options.tokenSeconds ?? 300, clock),
    certificates: options.certificates ?? { current: unused },
    heldWit: options.wit === 'off' ? undefined : (options.wit ?? (() => 'wit')),
    dial: dialWith(dialer),
    settings: { ...SETTINGS, ...options.settings },
    admit: () => {},
    turns: new Turns(),
    headerTimeout: 2_000,
    streamsPerConnection: options.streams ?? 100,
    calls: new OwnerLimits('calls', 'too_many_calls', options.calls ?? 1024, 4096),
  })
  const socket = join(dir, 'egress.sock')
  const accept = openDoor({
    ownerOf: (_pid, uid) => `uid ${uid}`,
    limits: new OwnerLimits('connections', 'too_many_connections', 4096, 4096),
    turns: new Turns(),
    attest: (fd) => attestation.attest(fd),
    http: door,
    http2: door.http2,
    clock,
    isBulk: true,
    firstBytesTimeout: 2_000,
    onConnection: () => {},
  })
  const ignore = () => {}
  const listening = await openSocket({
    path: socket,
    mode: 0o777,
    accept,
    clock,
    takeover: false,
    onTaken: ignore,
    onBack: ignore,
  })
  return {
    socket,
    door,
    attestation,
    revocations,
    approvals,
    asked,
    dropped,
    records: () => folder.records(),
    metrics: () => metrics.render(),
    setTargets: async (targets) => book.set(await load(targets)),
    [Symbol.asyncDispose]: async () => {
      listening.close()
      door.stop()
      attestation.stop()
      vault.stop()
      audit.close()
      folder.remove()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

function unused(): never {
  throw new Error('no certificate is expected')
}

/** Tokens as an authorization server issues them; each key's is kept. */
function fakeTokens(asked: TokenAsk[], dropped: string[], seconds: number, clock: Clock): Tokens {
  const issuer = ecPair()
  const kept = new Map<string, string>()
  return {
    held: () => undefined,
    get: async (ask) => {
      const { entry, signer, target } = ask
      const expires = nowSeconds(clock) + seconds
      const key = `${entry.spiffeId} ${signer.jkt} ${target.name}`
      const claims = { sub: entry.spiffeId, exp: expires, jti: randomUUID(), cnf: { jkt: signer.jkt } }
      const token = kept.get(key) ?? signToken({ alg: 'ES256', typ: 'at+jwt' }, claims, issuer)
      if (!kept.has(key)) asked.push(ask)
      kept.set(key, token)
      return { token: new Secret(token), jkt: signer.jkt, expires }
    },
    drop: ({ target }) => {
      dropped.push(target ?? '')
      kept.clear()
      return 1
    },
    stop: () => {},
  }
}

const SERVER = 'issuer: "https://login.example.org", client: { id: shop, auth: private_key_jwt }'

type BookOptions = Required<Pick<EgressOptions, 'users' | 'targets'>> &
  Pick<EgressOptions, 'server' | 'entry'>

async function bookOf(dir: string, options: BookOptions): Promise<RuleBook> {
  const policy = join(dir, 'policy')
  rmSync(policy, { recursive: true, force: true })
  mkdirSync(policy, { mode: 0o755 })
  for (const [layer, text] of Object.entries(textsOf(dir, options)))
    writeFileSync(join(policy, `${layer}.yaml`), text, { mode: 0o644 })
  const context = {
    trustDomain: parseTrustDomain(TRUST_DOMAIN),
    defaults: { x509Ttl: 3600, jwtTtl: 300 },
    now: () => nowSeconds(systemClock),
  }
  return loadPolicy([policy], context)
}

function textsOf(dir: string, { users, targets, server = SERVER, entry = '' }: BookOptions) {
  const named = Object.entries(targets)
  const entries = Object.entries(users).map(
    ([name, uid]) =>
      `  - spiffe_id: spiffe://${TRUST_DOMAIN}/${name}\n    selectors: [unix:uid:${uid}]\n    deliver: { x509: false, jwt: false, wit: false }\n${entry}`,
  )
  const identity = named.map(
    ([name, { identity = 'server: login' }]) =>
      `  - { name: ${name}, custody: nothing, max_ttl: 10m, ${identity} }\n`,
  )
  const platform = named.map(
    ([name, { origin, platform = '' }]) =>
      `  - { name: ${name}, origins: ["${origin}"], addresses: [127.0.0.1], tls: { trust: { file: ${join(dir, 'ca.pem')} } }${platform && `, ${platform}`} }\n`,
  )
  const application = named.map(
    ([name, { paths = '["/**"]', methods = '["*"]', grant = '' }]) =>
      `  - name: ${name}\n    grants:\n      - { callers: ["spiffe://${TRUST_DOMAIN}/**"], methods: ${methods}, paths: ${paths}${grant && `, ${grant}`} }\n`,
  )
  return {
    identity: `layer: identity\nservers:\n  - { name: login, ${server} }\nentries:\n${entries.join('')}targets:\n${identity.join('')}`,
    platform: `layer: platform\ntargets:\n${platform.join('')}`,
    application: `layer: application\ntargets:\n${application.join('')}`,
  }
}
