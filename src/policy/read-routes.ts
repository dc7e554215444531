/** Turns routes whose form has been checked into statements with their places. */
import type { YamlFile } from '../base/yaml.ts'
import type { Place } from './entry.ts'
import type { Hop, RouteException, RoutePlatform } from './route.ts'
import type { IdentityFile, PlatformFile, SecurityFile } from './schema.ts'
import { BEARER_TTL, type Named, type RouteStatement } from './statements.ts'
import type { Transmitter } from './transmitter.ts'

const HOUR = 3600

type PlaceOf = (...path: readonly (string | number)[]) => Place

export function placesIn(yaml: YamlFile): PlaceOf {
  return (...path) => ({ file: yaml.file, line: yaml.lineOf(path) })
}

export function routeIdentities(file: IdentityFile, at: PlaceOf): readonly RouteStatement[] {
  return (file.routes ?? []).map((route, index) => ({
    name: route.name,
    servers: [],
    serverNames: route.servers ?? [],
    audience: route.audience ?? [],
    binding: route.binding ?? ['dpop'],
    maxTtl: route.max_ttl ?? HOUR,
    actDepth: route.act_depth ?? 0,
    nonce: route.nonce ?? 'off',
    introspects: route.introspect ?? false,
    status: route.status ?? 'if_present',
    txnToken: route.txn_token && {
      serverName: route.txn_token.server,
      server: undefined,
      audience: route.txn_token.audience,
      isRequired: route.txn_token.presence === 'required',
    },
    handsOut: route.hand_out ?? 'claims',
    place: at('routes', index),
  }))
}

export function routePlatforms(file: PlatformFile, at: PlaceOf): readonly Named<RoutePlatform>[] {
  return (file.routes ?? []).map((route, index) => {
    const { name, received = '/' } = route
    return {
      name,
      origins: route.origins,
      received,
      public: route.public ?? received,
      hops: (route.hops ?? []).map(hopOf),
      scope: route.scope ?? name,
      verifiers: route.verifiers ?? [],
      place: at('routes', index),
    }
  })
}

type FileHop = NonNullable<NonNullable<PlatformFile['routes']>[number]['hops']>[number]

function hopOf({ name, spiffe_id: spiffeId, addresses = [], certificate = 'none' }: FileHop): Hop {
  return { name, spiffeId, addresses, certificate }
}

export function routeExceptions(file: SecurityFile, at: PlaceOf): readonly RouteException[] {
  return (file.route_exceptions ?? []).map((exception, index) => ({
    route: exception.route,
    approver: exception.approver,
    until: exception.until,
    clients: exception.clients,
    maxTtl: exception.max_ttl ?? BEARER_TTL,
    rate: exception.rate,
    sources: exception.sources ?? [],
    place: at('route_exceptions', index),
  }))
}

export function transmittersOf(file: SecurityFile, at: PlaceOf): readonly Transmitter[] {
  return (file.transmitters ?? []).map(({ audience, issuer, poll, subjects, ...stated }, index) => ({
    issuer,
    jwksUri: stated.jwks_uri,
    audience,
    subjects: subjects.map((each) => ('spiffe_id' in each ? { spiffeId: each.spiffe_id } : each)),
    tokenFile: stated.token_file,
    poll,
    place: at('transmitters', index),
  }))
}
