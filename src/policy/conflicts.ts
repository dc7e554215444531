/** What statements cannot say together, whichever files they stand in: found before a rule book is made of them. */
import { PROBLEMS_LIMIT, type Problem } from '../base/problem.ts'
import { idOfTrustDomain } from '../spiffe/id.ts'
import { bypassesIn } from './bypass.ts'
import { transmitterConflicts } from './conflicts-events.ts'
import { mtlsConflicts } from './conflicts-mtls.ts'
import { probeConflicts } from './conflicts-probe.ts'
import { routeConflicts } from './conflicts-routes.ts'
import { serverConflicts } from './conflicts-servers.ts'
import { sidecarConflicts } from './conflicts-sidecar.ts'
import { signingConflicts } from './conflicts-signing.ts'
import { tokenConflicts } from './conflicts-tokens.ts'
import type { Entry, Place } from './entry.ts'
import type { EntryTemplate } from './entry-template.ts'
import { isSafeOrigin } from './parse.ts'
import { kindOf } from './selector-kind.ts'
import { type PolicyContext, placeText, type Statements } from './statements.ts'
import { unnamed } from './template.ts'

/** What is wrong with `statements` as a whole, the first of it; empty when a rule book can be made. */
export function conflictsIn(statements: Statements, context: PolicyContext): readonly Problem[] {
  return allConflictsIn(statements, context).slice(0, PROBLEMS_LIMIT)
}

/** The same without a bound. */
export function allConflictsIn(statements: Statements, context: PolicyContext): readonly Problem[] {
  const home = `${idOfTrustDomain(context.trustDomain)}/`
  return [
    ...twiceIn('identity', statements.identity),
    ...twiceIn('platform', statements.platform),
    ...twiceIn('application', statements.application),
    ...entryTwins(statements),
    ...statements.templates.flatMap((template) => templateProblems(template, context)),
    ...statements.entries.flatMap((entry) => entryProblems(entry, home)),
    ...plainOrigins(statements),
    ...serverConflicts(statements, context),
    ...tokenConflicts(statements),
    ...sidecarConflicts(statements),
    ...routeConflicts(statements),
    ...probeConflicts(statements),
    ...transmitterConflicts(statements, context),
    ...mtlsConflicts(statements),
    ...signingConflicts(statements),
    ...bypassesIn(statements),
    ...foreignCallers(statements, home),
    ...(context.hasHook === false ? hooklessGrants(statements) : []),
    ...statements.observe.slice(1).map(({ place }) => {
      const first = statements.observe[0]
      return problem(place, `observe is there twice; first at ${first ? placeText(first.place) : ''}`)
    }),
  ]
}

function problem(place: Place, message: string): Problem {
  return { ...place, message }
}

interface Standing {
  readonly name: string
  readonly place: Place
}

/** Later files would silently win over earlier ones. */
function twiceIn(layer: string, targets: readonly Standing[]): readonly Problem[] {
  const first = new Map<string, Place>()
  return targets.flatMap(({ name, place }) => {
    const before = first.get(name)
    if (!before) {
      first.set(name, place)
      return []
    }
    return [problem(place, `layer ${layer} has the target ${name} twice; first at ${placeText(before)}`)]
  })
}

function entryTwins({ entries, templates }: Statements): readonly Problem[] {
  const first = new Map<string, Standing>()
  const find = (key: string, entry: Standing, what: string): readonly Problem[] => {
    const before = first.get(key)
    if (before) return [problem(entry.place, `${what}; first at ${placeText(before.place)}`)]
    first.set(key, entry)
    return []
  }
  const byName = (entry: Standing) =>
    find(`name ${entry.name}`, entry, `the entry ${entry.name} is there twice: give one of them a name`)
  const named = templates.flatMap(({ settings }) => byName(settings))
  const stated = entries.flatMap((entry) => [
    ...byName(entry),
    ...find(
      `rule ${entry.spiffeId} ${JSON.stringify([...entry.selectors].sort())}`,
      entry,
      `${entry.spiffeId} has the same selectors twice`,
    ),
  ])
  return [...named, ...stated]
}

/** Whose names templates ask for that the configuration does not give, and whose trust domain is another. */
function templateProblems(
  { id, dnsNames, names, settings }: EntryTemplate,
  context: PolicyContext,
): readonly Problem[] {
  const { place, name } = settings
  const missing = [id, ...dnsNames].flatMap((template) => unnamed(template, names))
  const home = [`${idOfTrustDomain(context.trustDomain)}/`, 'spiffe://{{']
  const found = [...new Set(missing)].map((says) =>
    problem(place, `the entry ${name} asks for ${says}, which the configuration does not name`),
  )
  if (home.some((start) => id.text.startsWith(start))) return found
  return [...found, problem(place, `${id.text} is outside the trust domain: wanted ${home[0]}…`)]
}

// A caller chooses what it runs, and may load code into it.
const PROGRAM_KINDS: ReadonlySet<string> = new Set(['unix:path', 'unix:sha256'])

function entryProblems(entry: Entry, home: string): readonly Problem[] {
  const found: Problem[] = []
  if (!entry.spiffeId.startsWith(home)) {
    found.push(problem(entry.place, `${entry.spiffeId} is outside the trust domain: wanted ${home}…`))
  }
  if (entry.selectors.every((selector) => PROGRAM_KINDS.has(kindOf(selector)))) {
    const message = `the entry ${entry.name} rests on path or sha256 alone: add unix:uid, unix:gid or systemd:id`
    found.push({ ...problem(entry.place, message), reason: 'entry_too_weak' })
  }
  return found
}

function plainOrigins(statements: Statements): readonly Problem[] {
  return statements.platform.flatMap(({ origins, insecureHttp, place }) =>
    origins
      .filter((origin) => !insecureHttp && !isSafeOrigin(origin))
      .map((origin) => problem(place, `${origin} is plain HTTP: use https, or say insecure_http: true`)),
  )
}

/** Nobody would ever answer for them. */
function hooklessGrants(statements: Statements): readonly Problem[] {
  return statements.application.flatMap(({ name, grants }) =>
    grants
      .filter(({ asksHook }) => asksHook)
      .map(({ place }) =>
        problem(place, `a grant of ${name} has hook: true, and the configuration has no decision_hook`),
      ),
  )
}

/** Callers are local workloads: an ID of another trust domain would never call here. */
function foreignCallers(statements: Statements, home: string): readonly Problem[] {
  return statements.application.flatMap(({ grants }) =>
    grants.flatMap(({ callers, place }) =>
      callers
        .filter((caller) => !caller.startsWith(home))
        .map((caller) => problem(place, `the caller ${caller} is outside the trust domain: wanted ${home}…`)),
    ),
  )
}
