/** Reads one policy file: YAML to the statements of its layer, each with its place. */
import { PROBLEMS_LIMIT, type Problem } from '../base/problem.ts'
import { checkShape } from '../base/shape.ts'
import { type Path, parseYaml, type YamlFile } from '../base/yaml.ts'
import type { Denial, PolicyTest } from './book.ts'
import type { CallContext } from './decide.ts'
import type { Exception, Grant, When } from './grant.ts'
import { placesIn, routeExceptions, transmittersOf } from './read-routes.ts'
import { identityOf, placeIn, platformOf } from './read-targets.ts'
import type { RouteGrant } from './route.ts'
import type { ApplicationFile, SecurityFile } from './schema.ts'
import { BEARER_TTL, NO_STATEMENTS, type PolicyContext, type Statements } from './statements.ts'

const MINUTE = 60
const MILLIS = 1000

export type ReadResult = { readonly statements: Statements } | { readonly problems: readonly Problem[] }

/** The statements in `text`, or what is wrong with it. `file` only names it. */
export async function readPolicy(file: string, text: string, context: PolicyContext): Promise<ReadResult> {
  const parsed = await parseYaml(file, text)
  return 'problems' in parsed ? parsed : readParsed(parsed.yaml, context)
}

/** The statements of a document that has been parsed, or what is wrong with it. */
export async function readParsed(yaml: YamlFile, context: PolicyContext): Promise<ReadResult> {
  const { LAYER_SCHEMAS } = await import('./schema.ts')
  const layer = layerOf(yaml.value)
  switch (layer) {
    case 'identity': {
      const shaped = checkShape(LAYER_SCHEMAS.identity, yaml)
      return 'problems' in shaped ? shaped : { statements: identityOf(shaped.value, yaml, context) }
    }
    case 'platform': {
      const shaped = checkShape(LAYER_SCHEMAS.platform, yaml)
      return 'problems' in shaped ? shaped : { statements: platformOf(shaped.value, yaml) }
    }
    case 'application': {
      const shaped = checkShape(LAYER_SCHEMAS.application, yaml)
      return 'problems' in shaped ? shaped : await applicationOf(shaped.value, yaml)
    }
    case 'security': {
      const shaped = checkShape(LAYER_SCHEMAS.security, yaml)
      return 'problems' in shaped ? shaped : { statements: securityOf(shaped.value, yaml) }
    }
    default:
      return { problems: [layerProblem(yaml, layer)] }
  }
}

function layerOf(value: unknown): unknown {
  return typeof value === 'object' && value !== null && 'layer' in value ? value.layer : undefined
}

function layerProblem(yaml: YamlFile, layer: unknown): Problem {
  const seen = layer === undefined ? 'is missing' : `is ${JSON.stringify(layer)?.slice(0, 64)}`
  const message = `layer ${seen}: wanted identity, platform, application or security`
  return { file: yaml.file, line: yaml.lineOf(['layer']), message }
}

async function applicationOf(file: ApplicationFile, yaml: YamlFile): Promise<ReadResult> {
  const problems: Problem[] = []
  const application = []
  for (const [index, target] of (file.targets ?? []).entries()) {
    const grants: Grant[] = []
    for (const [at, grant] of target.grants.entries()) {
      const path = ['targets', index, 'grants', at] as const
      const { name = '', callers, methods, paths } = grant
      const when = await whenOf(grant.when, yaml, path, problems)
      grants.push({
        name,
        callers,
        methods,
        paths,
        when,
        approval: grant.approval && {
          on: grant.approval.on ?? 'first_use',
          wait: grant.approval.wait ?? MINUTE,
        },
        asksHook: grant.hook ?? false,
        isProbe: grant.probe ?? false,
        signedHeaders: [...new Set(grant.signed_headers)],
        place: placeIn(yaml, ...path),
      })
    }
    application.push({ name: target.name, grants, place: placeIn(yaml, 'targets', index) })
  }
  const routes = { ...NO_STATEMENTS.routes, application: await routesOf(file, yaml, problems) }
  if (problems.length > 0) return { problems: problems.slice(0, PROBLEMS_LIMIT) }
  return { statements: { ...NO_STATEMENTS, application, routes, tests: testsOf(file, yaml) } }
}

async function routesOf(file: ApplicationFile, yaml: YamlFile, problems: Problem[]) {
  const routes = []
  for (const [index, { name, grants: stated }] of (file.routes ?? []).entries()) {
    const grants: RouteGrant[] = []
    for (const [at, grant] of stated.entries()) {
      const path = ['routes', index, 'grants', at] as const
      const { name: grantName = '', callers, methods, paths, scopes = [] } = grant
      const when = await whenOf(grant.when, yaml, path, problems)
      grants.push({ name: grantName, callers, methods, paths, scopes, when, place: placeIn(yaml, ...path) })
    }
    routes.push({ name, grants, place: placeIn(yaml, 'routes', index) })
  }
  return routes
}

async function whenOf(
  source: string | undefined,
  yaml: YamlFile,
  grant: Path,
  problems: Problem[],
): Promise<When | undefined> {
  if (source === undefined) return undefined
  const { compileWhen } = await import('./when.ts')
  try {
    return compileWhen(source)
  } catch (error) {
    const message = error instanceof Error ? error.message : 'is not understood'
    problems.push({ file: yaml.file, line: yaml.lineOf([...grant, 'when']), message: `when: ${message}` })
    return undefined
  }
}

function testsOf(file: ApplicationFile, yaml: YamlFile): readonly PolicyTest[] {
  return (file.tests ?? []).map((test, index) => ({
    name: test.name,
    spiffeId: test.spiffe_id,
    selectors: test.selectors ?? [],
    kind: test.kind ?? 'dpop',
    door: test.door ?? 'headers',
    method: test.method,
    url: test.url,
    token: test.token ?? 'full',
    expect: test.expect,
    reason: test.reason,
    rule: test.rule,
    context: test.context && contextOf(test.context),
    place: placeIn(yaml, 'tests', index),
  }))
}

type StatedContext = NonNullable<NonNullable<ApplicationFile['tests']>[number]['context']>

/** A time that is not stated is no number, so that no condition on it holds. */
function contextOf(stated: StatedContext): CallContext {
  const { time, subject = '', actors = [], txn = '', first_use: isFirstUse = true } = stated
  return {
    now: time === undefined ? Number.NaN : Math.floor(Date.parse(time) / MILLIS),
    subject,
    actors,
    txn,
    calls: stated.session_calls ?? 0,
    writes: stated.session_writes ?? 0,
    targets: stated.session_targets ?? 0,
    isFirstUse,
  }
}

function securityOf(file: SecurityFile, yaml: YamlFile): Statements {
  const denials = (file.deny ?? []).map(
    (denial, index): Denial => ({
      spiffeId: denial.spiffe_id,
      target: denial.target,
      why: denial.reason,
      until: denial.until,
      place: placeIn(yaml, 'deny', index),
    }),
  )
  const observe = file.observe ? [{ ...file.observe, place: placeIn(yaml, 'observe') }] : []
  const exceptions = (file.exceptions ?? []).map(
    ({ target, approver, until, max_ttl: maxTtl = BEARER_TTL }, index): Exception => ({
      target,
      approver,
      until,
      maxTtl,
      place: placeIn(yaml, 'exceptions', index),
    }),
  )
  const routes = { ...NO_STATEMENTS.routes, exceptions: routeExceptions(file, placesIn(yaml)) }
  const transmitters = transmittersOf(file, placesIn(yaml))
  return { ...NO_STATEMENTS, denials, observe, exceptions, routes, transmitters }
}
