/** Makes the rule book of a set of statements: joined by target name, indexed, and no longer changed. */
import type { Seconds } from '../base/clock.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Denial, RuleBook } from './book.ts'
import { bypassesIn } from './bypass.ts'
import type { Entry } from './entry.ts'
import type { Exception, Grant, Server, Target } from './grant.ts'
import { indexEntries } from './index-entries.ts'
import { isHostName, LOOPBACK_HOSTS } from './parse.ts'
import { isMatchOfAny, isPrefix } from './pattern.ts'
import { reservedAudiences } from './reserved.ts'
import { buildRoutes } from './routes.ts'
import { type Statements, SYSTEM_TLS } from './statements.ts'
import { weaknessesOf } from './weaknesses.ts'

export interface BookOptions {
  /** Which policy this is: the hash of its files. */
  readonly hash: string
  readonly now: () => Seconds
  readonly isPartial?: boolean
}

/** The rule book of `statements`, which `conflictsIn` has found no fault with. */
export function buildBook(statements: Statements, options: BookOptions): RuleBook {
  const targets = joinTargets(statements)
  const targetsByOrigin = byOrigin(targets)
  const grants = new Map([...targets.values()].map((target) => [target, indexGrants(target)]))
  const entries = indexEntries(statements.entries, statements.templates, misfitFinder(statements))
  const observing = statements.observe[0]
  return {
    entries: statements.entries,
    templates: statements.templates,
    identities: () => [...statements.entries, ...entries.made()],
    targets,
    servers: new Map(statements.servers.map((server) => [server.name, server])),
    serverTls: serverFinder(statements),
    serverPlatforms: statements.serverPlatforms,
    targetsByOrigin,
    targetNamed: (host) => targetNamed(targets, host),
    targetsFor: (url) => targetsFor(targetsByOrigin, url),
    grantsFor: (target, caller) => grants.get(target)?.(caller) ?? [],
    denialOf: denialFinder(statements.denials, options.now),
    exceptionOf: exceptionFinder(statements.exceptions, options.now),
    entriesFor: entries.find,
    misfits: entries.misfits,
    isReserved: reservedAudiences(serversOf(statements)),
    wantsSelector: entries.wants,
    needsContext: statements.application.some(({ grants }) => grants.some(needsContext)),
    get observe() {
      return observing !== undefined && options.now() < observing.until
    },
    observing,
    denials: statements.denials,
    exceptions: statements.exceptions,
    tests: statements.tests,
    routes: buildRoutes(statements.routes, options.now),
    transmitters: statements.transmitters,
    isPartial: options.isPartial ?? false,
    hash: options.hash,
    weaknesses: weaknessesOf(statements),
  }
}

/** What nobody could have known before the caller came; what `conflictsIn` refuses of other entries. */
function misfitFinder(statements: Statements): (entry: Entry) => string | undefined {
  const probes = new Set(statements.entries.filter(({ isProbe }) => isProbe).map(({ spiffeId }) => spiffeId))
  return (entry) => {
    if (probes.has(entry.spiffeId)) return `${entry.spiffeId} is the identity of the replay lab`
    return bypassesIn({ ...statements, entries: [entry] })[0]?.message
  }
}

function joinTargets(statements: Statements): ReadonlyMap<string, Target> {
  const byName = <T extends { readonly name: string }>(layer: readonly T[]) =>
    new Map(layer.map((statement) => [statement.name, statement]))
  const identity = byName(statements.identity)
  const platform = byName(statements.platform)
  const application = byName(statements.application)
  const names = new Set([...identity.keys(), ...platform.keys(), ...application.keys()])
  return new Map(
    [...names].map((name) => [
      name,
      {
        name,
        identity: identity.get(name),
        platform: platform.get(name),
        application: application.get(name),
      },
    ]),
  )
}

function needsContext({ approval, asksHook, when }: Grant): boolean {
  return asksHook || approval !== undefined || (when?.asks.length ?? 0) > 0
}

/** Also those that no target takes tokens of yet. */
function serversOf(statements: Statements): readonly Server[] {
  const stated = statements.identity.flatMap(({ server }) => (server ? [server] : []))
  return [...new Set([...statements.servers, ...stated])]
}

const SYSTEM = { tls: SYSTEM_TLS, addresses: [] } as const

function serverFinder({ serverPlatforms }: Statements): RuleBook['serverTls'] {
  const byIssuer = new Map(serverPlatforms.map((server) => [server.issuer, server]))
  return (issuer) => byIssuer.get(issuer) ?? SYSTEM
}

/** Host names have no case (RFC 9110 s.4.2.3); names of targets that a Host can carry are in lower case. */
function targetNamed(targets: ReadonlyMap<string, Target>, host: string): Target | undefined {
  const name = host.toLowerCase()
  return isHostName(name) ? targets.get(name) : undefined
}

function byOrigin(targets: ReadonlyMap<string, Target>): ReadonlyMap<string, readonly Target[]> {
  const found = new Map<string, Target[]>()
  for (const target of targets.values()) {
    for (const origin of target.platform?.origins ?? []) {
      const there = found.get(origin)
      if (there) there.push(target)
      else found.set(origin, [target])
    }
  }
  return found
}

const NONE: readonly never[] = []
/** Callers whose grants are remembered, a target. */
const KNOWN_LIMIT = 1_024

function targetsFor(targets: ReadonlyMap<string, readonly Target[]>, url: CanonicalUrl): readonly Target[] {
  const exact = targets.get(url.origin) ?? NONE
  if (!LOOPBACK_HOSTS.has(url.host)) return exact
  const anyPort = targets.get(`${url.scheme}://${url.host}:*`) ?? NONE
  return anyPort.length === 0 ? exact : [...exact, ...anyPort.filter((target) => !exact.includes(target))]
}

/** Exact callers are looked up; prefixes are few, come after them, and are tried one by one. */
function indexGrants(target: Target): (caller: SpiffeId) => readonly Grant[] {
  const grants = target.application?.grants ?? []
  const prefixed = grants.filter((grant) => grant.callers.some(isPrefix))
  const exact = new Map<string, Grant[]>()
  for (const grant of grants) {
    for (const caller of new Set(grant.callers)) {
      if (isPrefix(caller)) continue
      const there = exact.get(caller)
      if (there) there.push(grant)
      else exact.set(caller, [grant])
    }
  }
  if (prefixed.length === 0) return (caller) => exact.get(caller) ?? NONE
  const known = new Map<SpiffeId, readonly Grant[]>()
  return (caller) => {
    const before = known.get(caller)
    if (before) return before
    const named: readonly Grant[] = exact.get(caller) ?? NONE
    const matching = prefixed.filter((grant) => !named.includes(grant) && isMatchOfAny(grant.callers, caller))
    const found = [...named, ...matching]
    if (known.size >= KNOWN_LIMIT) known.clear()
    known.set(caller, found)
    return found
  }
}

function exceptionFinder(exceptions: readonly Exception[], now: () => Seconds): RuleBook['exceptionOf'] {
  const byTarget = new Map(exceptions.map((exception) => [exception.target, exception]))
  return (target) => {
    const found = byTarget.get(target)
    return found && now() < found.until ? found : undefined
  }
}

function denialFinder(denials: readonly Denial[], now: () => Seconds): RuleBook['denialOf'] {
  if (denials.length === 0) return () => undefined
  return (spiffeId, target) => {
    const at = now()
    return denials.find(
      (denial) =>
        (denial.until === undefined || at < denial.until) &&
        (denial.spiffeId === undefined || denial.spiffeId === spiffeId) &&
        (denial.target === undefined || denial.target === target),
    )
  }
}
