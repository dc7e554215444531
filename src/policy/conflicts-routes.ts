/** What is wrong with routes once all files are joined. */
import { meant } from '../base/nearest.ts'
import type { Problem } from '../base/problem.ts'
import type { Place } from './entry.ts'
import { isSafeOrigin } from './parse.ts'
import type { RoutePlatform } from './route.ts'
import {
  type Named,
  type NamedServer,
  placeText,
  type RouteStatement,
  type Statements,
} from './statements.ts'

/** Problems of routes, of the servers they name, and of exceptions from them. */
export function routeConflicts({ routes, servers }: Statements): readonly Problem[] {
  const excepted = new Set(routes.exceptions.map(({ route }) => route))
  return [
    ...twice('identity', routes.identity),
    ...twice('platform', routes.platform),
    ...twice('application', routes.application),
    ...twice(
      'security',
      routes.exceptions.map(({ route: name, place }) => ({ name, place })),
    ),
    ...routes.identity.flatMap((route) => [
      ...serverProblems(route, servers),
      ...transactionProblems(route, servers),
      ...bearerProblems(route, excepted.has(route.name)),
    ]),
    ...routes.platform.flatMap(platformProblems),
  ]
}

function twice(layer: string, routes: readonly { name: string; place: Place }[]): readonly Problem[] {
  const first = new Map<string, Place>()
  return routes.flatMap(({ name, place }) => {
    const before = first.get(name)
    if (!before) {
      first.set(name, place)
      return []
    }
    return [
      { ...place, message: `layer ${layer} has the route ${name} twice; first at ${placeText(before)}` },
    ]
  })
}

function serverProblems(
  { name, serverNames, audience, introspects, place, status }: RouteStatement,
  servers: readonly NamedServer[],
): readonly Problem[] {
  const known = servers.map((server) => server.name)
  const unknown = serverNames
    .filter((server) => !known.includes(server))
    .map((server) => `${name}: no identity file has the server ${server}${meant(server, known)}`)
  const nobody =
    serverNames.length > 0 && audience.length === 0
      ? [`${name}: tokens are taken, and no audience is stated: state audience`]
      : []
  const mute = introspects
    ? servers
        .filter((server) => serverNames.includes(server.name) && server.client?.method !== 'private_key_jwt')
        .map(
          (server) =>
            `${name}: introspect asks the server ${server.name} as a client of the agent's own: state a client with auth: private_key_jwt`,
        )
    : []
  const unasked =
    introspects && serverNames.length === 0 ? [`${name}: introspect asks servers, and none is stated`] : []
  const unlisted =
    status === 'required'
      ? servers
          .filter((server) => serverNames.includes(server.name) && !server.statusLists?.length)
          .map(({ name: of }) => `${name}: status is required, and the server ${of} has no status_lists`)
      : []
  return [...unknown, ...nobody, ...mute, ...unasked, ...unlisted].map((message) => ({ ...place, message }))
}

/** What covers a Txn-Token: a proof with `tth`, a signature, the channel. */
const COVERING: ReadonlySet<string> = new Set(['wpt', 'http-signature', 'mtls', 'jwt_svid'])

function transactionProblems(
  { name, binding, place, txnToken }: RouteStatement,
  servers: readonly NamedServer[],
): readonly Problem[] {
  if (!txnToken) return []
  const known = servers.map((server) => server.name)
  const unknown = known.includes(txnToken.serverName)
    ? []
    : [`${name}: no identity file has the server ${txnToken.serverName}${meant(txnToken.serverName, known)}`]
  const uncovered = binding.some((one) => COVERING.has(one))
    ? []
    : [`${name}: txn_token wants a binding that covers it: wpt, http-signature, mtls or jwt_svid`]
  return [...unknown, ...uncovered].map((message) => ({ ...place, message }))
}

function bearerProblems({ name, binding, place }: RouteStatement, isExcepted: boolean): readonly Problem[] {
  if (!binding.includes('bearer') || isExcepted) return []
  const message = `${name}: binding bearer wants an exception for it under route_exceptions in a security policy file`
  return [{ ...place, message }]
}

function platformProblems({ name, origins, place, ...route }: Named<RoutePlatform>): readonly Problem[] {
  const plain = origins
    .filter((origin) => !isSafeOrigin(origin))
    .map((origin) => `${name}: ${origin} is plain HTTP: callers use https`)
  const anyPort = origins
    .filter((origin) => origin.endsWith(':*'))
    .map((origin) => `${name}: ${origin}: a public origin has one port`)
  const prefixes = [route.received, route.public]
    .filter((prefix) => prefix.includes('*'))
    .map((prefix) => `${name}: ${prefix} is a prefix already: leave out the stars`)
  // Whoever comes to such an address hands on what he likes.
  const unproven = route.hops
    .filter(({ certificate, spiffeId }) => certificate !== 'none' && spiffeId === undefined)
    .map(
      (hop) =>
        `${name}: the hop ${hop.name} hands on certificates, and an address proves nobody: state spiffe_id`,
    )
  return [...plain, ...anyPort, ...prefixes, ...unproven].map((message) => ({ ...place, message }))
}
