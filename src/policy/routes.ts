/** The routes of a rule book: joined by name, found by where a request arrived. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { isMatchOfAny, stemOf } from './pattern.ts'
import type { Route, RouteException, RouteGrant } from './route.ts'
import type { RouteStatements } from './statements.ts'

/** The routes and what security excepts from them. */
export interface Routes {
  readonly all: ReadonlyMap<string, Route>
  /** The exception for bearer tokens that is in force at `route`. */
  exceptionOf(route: string): RouteException | undefined
  readonly exceptions: readonly RouteException[]
}

export function buildRoutes(statements: RouteStatements, now: () => Seconds): Routes {
  const byName = <T extends { readonly name: string }>(layer: readonly T[]) =>
    new Map(layer.map((statement) => [statement.name, statement]))
  const identity = byName(statements.identity)
  const platform = byName(statements.platform)
  const application = byName(statements.application)
  const names = new Set([...identity.keys(), ...platform.keys(), ...application.keys()])
  const routeOf = (name: string): Route => ({
    name,
    identity: identity.get(name),
    platform: platform.get(name),
    application: application.get(name),
  })
  const exceptions = new Map(statements.exceptions.map((exception) => [exception.route, exception]))
  return {
    all: new Map([...names].map((name) => [name, routeOf(name)])),
    exceptions: statements.exceptions,
    exceptionOf: (route) => {
      const found = exceptions.get(route)
      return found && now() < found.until ? found : undefined
    },
  }
}

/** The public path of one that arrived as `received`; undefined when it is not below what the route receives. */
export function publicPathOf(route: Route, received: string): string | undefined {
  if (!route.platform) return undefined
  const [from, to] = [trimmed(route.platform.received), trimmed(route.platform.public)]
  if (!isBelow(from, received)) return undefined
  const rest = received.slice(from.length)
  return to + rest === '' ? '/' : to + rest
}

/** How much of the path a route states: of two that take it, the longer one is meant. */
export function lengthOf({ platform }: Route): number {
  return trimmed(platform?.received ?? '/').length
}

/**
 * Refuses a path that servers which fold letters or slashes (Express by default, nginx) read as one of a narrower route
 * than `found`: its statements would not be asked. Throws url_refused.
 */
export function checkSpelling(routes: Iterable<Route>, path: string, found: Route): void {
  const read = folded(path)
  for (const route of routes) {
    if (!route.platform || lengthOf(route) <= lengthOf(found)) continue
    if (isBelow(folded(trimmed(route.platform.received)), read))
      throw new Fault(
        'url_refused',
        `the path is of ${found.name}, and of ${route.name} to servers that fold letters or slashes`,
        { action: `Send the path as the route ${route.name} is stated, or another one.` },
      )
  }
}

function folded(path: string): string {
  return path.replace(/\/{2,}/g, '/').toLowerCase()
}

function trimmed(prefix: string): string {
  const stem = stemOf(prefix)
  return stem.endsWith('/') ? stem.slice(0, -1) : stem
}

function isBelow(prefix: string, path: string): boolean {
  return path.startsWith(prefix) && (path.length === prefix.length || path.charCodeAt(prefix.length) === 0x2f)
}

/** The grants of `route` that name `caller`, in policy order. */
export function routeGrantsFor({ application }: Route, caller: string): readonly RouteGrant[] {
  return (application?.grants ?? []).filter(({ callers }) => isMatchOfAny(callers, caller))
}
