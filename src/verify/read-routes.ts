/** Routes in options become the statements that policy files make, and are checked like them. */
import { parseAddress } from '../policy/address.ts'
import { routeConflicts } from '../policy/conflicts-routes.ts'
import {
  GRANTS_LIMIT,
  LIST_LIMIT,
  METHOD,
  METHOD_ERROR,
  NAME,
  NAME_ERROR,
  parseRouteCaller,
  SCOPE,
  SCOPE_ERROR,
} from '../policy/forms-routes.ts'
import { parseDate, parseOrigin, parsePath, parseServerUrl } from '../policy/parse.ts'
import type { Credential, Hop, RouteException, RouteGrant, RouteTxnToken } from '../policy/route.ts'
import {
  BEARER_TTL,
  joinStatements,
  type NamedServer,
  NO_STATEMENTS,
  type RouteStatements,
  type Statements,
} from '../policy/statements.ts'
import { parseWorkloadId } from '../spiffe/id.ts'
import { choiceOf, countOf, invalid, listOf, type Members, membersOf, parsed, textOf } from './form.ts'

const HOUR = 3600
const DAY = 86_400
const BINDINGS: readonly Credential[] = ['dpop', 'mtls', 'wpt', 'http-signature', 'jwt_svid', 'bearer']
const SERVER = ['name', 'issuer', 'jwksUri', 'statusLists', 'ca'] as const
const GRANT = ['name', 'callers', 'methods', 'paths', 'scopes'] as const
const HOP = ['name', 'spiffeId', 'addresses', 'certificate'] as const
const TXN_TOKEN = ['server', 'audience', 'presence'] as const
const BEARER = ['approver', 'until', 'clients', 'maxTtl', 'rate', 'sources'] as const
/** The members of a route. */
export const ROUTE = [
  'name',
  'origins',
  'received',
  'public',
  'hops',
  'servers',
  'audience',
  'binding',
  'maxTtl',
  'actDepth',
  'nonce',
  'status',
  'txnToken',
  'scope',
  'grants',
  'bearer',
] as const

/** A server, and the roots of the connection to it. */
export interface StatedServer {
  readonly server: NamedServer
  readonly ca: string | undefined
}

/** Throws policy_invalid. */
export function readServers(given: unknown): readonly StatedServer[] {
  return listOf(given ?? [], 'servers', serverOf, LIST_LIMIT)
}

function serverOf(given: unknown, at: string): StatedServer {
  const { name, issuer, jwksUri, statusLists = [], ca } = membersOf(given, at, SERVER)
  if (ca !== undefined && (typeof ca !== 'string' || !ca.includes('-----BEGIN CERTIFICATE-----')))
    throw invalid(`${at}.ca`, 'is no certificate in PEM')
  return {
    server: {
      name: nameOf(name, `${at}.name`),
      issuer: httpsOf(issuer, `${at}.issuer`),
      jwksUri: jwksUri === undefined ? undefined : httpsOf(jwksUri, `${at}.jwksUri`),
      statusLists: listOf(
        statusLists,
        `${at}.statusLists`,
        (item, where) => parsed(item, where, parseOrigin),
        LIST_LIMIT,
      ),
      tokenEndpoint: undefined,
      client: undefined,
      place: { file: at, line: 0 },
    },
    ca,
  }
}

/** Not even loopback speaks plain HTTP here: whoever answers there makes keys. */
function httpsOf(given: unknown, at: string): string {
  const url = parsed(given, at, parseServerUrl)
  if (!url.toLowerCase().startsWith('https://')) throw invalid(at, 'is not an https URL')
  return url
}

/** The statements of all routes, joined with `servers` and found free of conflicts. Throws policy_invalid. */
export function readRoutes(
  given: readonly (readonly [Members, string])[],
  servers: readonly NamedServer[],
): RouteStatements {
  const routes = given.map(([route, at]) => routeOf(route, at, servers))
  const statements: Statements = {
    ...NO_STATEMENTS,
    servers,
    routes: {
      identity: routes.flatMap(({ identity }) => identity),
      platform: routes.flatMap(({ platform }) => platform),
      application: routes.flatMap(({ application }) => application),
      exceptions: routes.flatMap(({ exceptions }) => exceptions),
    },
  }
  const joined = joinStatements([statements])
  const [problem] = routeConflicts(joined)
  if (problem) throw invalid(problem.file, problem.message)
  return joined.routes
}

function routeOf(route: Members, at: string, servers: readonly NamedServer[]): RouteStatements {
  const name = nameOf(route['name'] ?? 'default', `${at}.name`)
  const place = { file: at, line: 0 }
  return {
    identity: [{ name, place, ...identityOf(route, at, servers) }],
    platform: [{ name, place, ...platformOf(route, at, name) }],
    application: [{ name, place, grants: listOf(route['grants'], `${at}.grants`, grantOf, GRANTS_LIMIT) }],
    exceptions: route['bearer'] === undefined ? [] : [bearerOf(route['bearer'], `${at}.bearer`, name)],
  }
}

function identityOf(route: Members, at: string, servers: readonly NamedServer[]) {
  const {
    audience = [],
    binding = ['dpop'],
    maxTtl = HOUR,
    actDepth = 0,
    nonce = 'off',
    status = 'if_present',
  } = route
  const names = route['servers'] ?? servers.map(({ name }) => name)
  return {
    servers: [],
    serverNames: listOf(names, `${at}.servers`, nameOf, LIST_LIMIT),
    audience: listOf(audience, `${at}.audience`, plainText, LIST_LIMIT),
    binding: listOf(
      binding,
      `${at}.binding`,
      (item, where) => choiceOf(item, where, BINDINGS),
      BINDINGS.length,
    ),
    maxTtl: countOf(maxTtl, `${at}.maxTtl`, [1, 30 * DAY]),
    actDepth: countOf(actDepth, `${at}.actDepth`, [0, 8]),
    nonce: choiceOf(nonce, `${at}.nonce`, ['off', 'required'] as const),
    introspects: false,
    txnToken: route['txnToken'] === undefined ? undefined : txnTokenOf(route['txnToken'], `${at}.txnToken`),
    status: choiceOf(status, `${at}.status`, ['if_present', 'required'] as const),
    handsOut: 'claims' as const,
  }
}

function txnTokenOf(given: unknown, at: string): RouteTxnToken {
  const { server, audience, presence = 'if_present' } = membersOf(given, at, TXN_TOKEN)
  return {
    serverName: nameOf(server, `${at}.server`),
    server: undefined,
    audience: plainText(audience, `${at}.audience`),
    isRequired: choiceOf(presence, `${at}.presence`, ['if_present', 'required'] as const) === 'required',
  }
}

function platformOf(route: Members, at: string, name: string) {
  const { received: from = '/', hops = [], scope = name } = route
  const received = parsed(from, `${at}.received`, parsePath)
  return {
    origins: listOf(
      route['origins'],
      `${at}.origins`,
      (item, where) => parsed(item, where, parseOrigin),
      LIST_LIMIT,
    ),
    received,
    public: parsed(route['public'] ?? received, `${at}.public`, parsePath),
    hops: listOf(hops, `${at}.hops`, hopOf, 16),
    scope: nameOf(scope, `${at}.scope`),
    verifiers: [],
  }
}

function hopOf(given: unknown, at: string): Hop {
  const { name, spiffeId, addresses, certificate = 'none' } = membersOf(given, at, HOP)
  if (spiffeId === undefined && addresses === undefined)
    throw invalid(at, 'names neither spiffeId nor addresses: a hop has to be known by something')
  return {
    name: nameOf(name, `${at}.name`),
    spiffeId: spiffeId === undefined ? undefined : parsed(spiffeId, `${at}.spiffeId`, parseWorkloadId),
    addresses: listOf(addresses ?? [], `${at}.addresses`, addressOf, LIST_LIMIT),
    certificate: choiceOf(certificate, `${at}.certificate`, ['none', 'client_cert', 'xfcc'] as const),
  }
}

function grantOf(given: unknown, at: string): RouteGrant {
  const { name, callers, methods, paths, scopes = [] } = membersOf(given, at, GRANT)
  return {
    name: name === undefined ? '' : nameOf(name, `${at}.name`),
    callers: listOf(
      callers,
      `${at}.callers`,
      (item, where) => parsed(item, where, parseRouteCaller),
      GRANTS_LIMIT,
    ),
    methods: listOf(methods, `${at}.methods`, (item, where) => textOf(item, where, METHOD, METHOD_ERROR), 32),
    paths: listOf(paths, `${at}.paths`, (item, where) => parsed(item, where, parsePath), LIST_LIMIT),
    scopes: listOf(
      scopes,
      `${at}.scopes`,
      (item, where) => textOf(item, where, SCOPE, SCOPE_ERROR),
      LIST_LIMIT,
    ),
    when: undefined,
    place: { file: at, line: 0 },
  }
}

function bearerOf(given: unknown, at: string, route: string): RouteException {
  const { approver, until, clients, maxTtl = BEARER_TTL, rate, sources = [] } = membersOf(given, at, BEARER)
  return {
    route,
    approver: plainText(approver, `${at}.approver`),
    until: parsed(until, `${at}.until`, parseDate),
    clients: listOf(clients, `${at}.clients`, plainText, LIST_LIMIT),
    maxTtl: countOf(maxTtl, `${at}.maxTtl`, [1, DAY]),
    rate: rate === undefined ? undefined : countOf(rate, `${at}.rate`, [1, 100_000]),
    sources: listOf(sources, `${at}.sources`, addressOf, LIST_LIMIT),
    place: { file: at, line: 0 },
  }
}

const nameOf = (given: unknown, at: string) => textOf(given, at, NAME, NAME_ERROR)
const plainText = (given: unknown, at: string) =>
  textOf(given, at, /^.{1,2048}$/su, 'is not a text of 1 to 2048 characters')
const addressOf = (given: unknown, at: string) => parsed(given, at, parseAddress)
