/** What policy files say, before the layers are joined: each statement with its place. */
import type { Seconds } from '../base/clock.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import type { Denial, Observe, PolicyTest } from './book.ts'
import type { Entry, Place } from './entry.ts'
import type { EntryTemplate } from './entry-template.ts'
import type {
  Exception,
  Grant,
  Server,
  ServerPlatform,
  TargetIdentity,
  TargetPlatform,
  TlsTrust,
} from './grant.ts'
import type { RouteException, RouteGrant, RouteIdentity, RoutePlatform } from './route.ts'
import type { Transmitter } from './transmitter.ts'

/** The four layers; a file belongs to one of them and holds only its statements. */
export type Layer = 'identity' | 'platform' | 'application' | 'security'

/** One layer's statement about a target. */
export type Named<T> = T & { readonly name: string }

/** An authorization server and where its name is stated. */
export type NamedServer = Server & { readonly name: string; readonly place: Place }

/** Identity's statement about a target; `serverName` is looked up when the files are joined. */
export type IdentityStatement = Named<TargetIdentity> & {
  readonly serverName?: string | undefined
  /** The server that exchanges first, looked up likewise. */
  readonly viaName?: string | undefined
}

/** Identity's statement about a route; its servers are looked up when the files are joined. */
export type RouteStatement = Named<RouteIdentity> & { readonly serverNames: readonly string[] }

export interface RouteStatements {
  readonly identity: readonly RouteStatement[]
  readonly platform: readonly Named<RoutePlatform>[]
  readonly application: readonly Named<{ readonly grants: readonly RouteGrant[]; readonly place: Place }>[]
  readonly exceptions: readonly RouteException[]
}

export interface Statements {
  readonly entries: readonly Entry[]
  /** Entries that are made for each caller. */
  readonly templates: readonly EntryTemplate[]
  /** Authorization servers that identity names. */
  readonly servers: readonly NamedServer[]
  readonly identity: readonly IdentityStatement[]
  readonly platform: readonly Named<TargetPlatform & { readonly insecureHttp: boolean }>[]
  readonly serverPlatforms: readonly ServerPlatform[]
  readonly application: readonly Named<{ readonly grants: readonly Grant[]; readonly place: Place }>[]
  readonly tests: readonly PolicyTest[]
  readonly observe: readonly Observe[]
  readonly denials: readonly Denial[]
  readonly exceptions: readonly Exception[]
  readonly routes: RouteStatements
  readonly transmitters: readonly Transmitter[]
}

const NO_ROUTES: RouteStatements = { identity: [], platform: [], application: [], exceptions: [] }

export const NO_STATEMENTS: Statements = {
  entries: [],
  templates: [],
  servers: [],
  identity: [],
  platform: [],
  serverPlatforms: [],
  application: [],
  tests: [],
  observe: [],
  denials: [],
  exceptions: [],
  routes: NO_ROUTES,
  transmitters: [],
}

/** The longest life of a bearer token where the exception names none: a stolen one works as long (threats row 2). */
export const BEARER_TTL: Seconds = 120

/** How a TLS connection is verified where platform says nothing. */
export const SYSTEM_TLS: TlsTrust = { trust: 'system', peerId: undefined, serverName: undefined }

/** What policy is read against. */
export interface PolicyContext {
  readonly trustDomain: TrustDomain
  /** What templates call this cluster; those that ask for it are refused when absent. */
  readonly clusterName?: string | undefined
  readonly clusterDomain?: string | undefined
  /** The lives of SVIDs where an entry says nothing. */
  readonly defaults: { readonly x509Ttl: Seconds; readonly jwtTtl: Seconds }
  /** Whether other nodes load the same policy; `one` when absent. */
  readonly nodes?: 'one' | 'many'
  /** Whether they have the same JWT and WIT keys. */
  readonly sharesKeys?: boolean
  /** Whether clients may attest themselves by a WIT-SVID; not looked at when absent. */
  readonly attestation?: boolean | undefined
  /** Whether a decision hook is configured; not known when absent. */
  readonly hasHook?: boolean | undefined
  /** Whether security events can be pushed here; not known when absent. */
  readonly takesEvents?: boolean | undefined
  /** Ends what has an end date. */
  readonly now: () => Seconds
}

/** One policy file as text. */
export interface PolicyText {
  readonly file: string
  readonly text: string
}

/** All statements of `files`, in their order; targets that name a server have got it, unless nobody states it. */
export function joinStatements(files: readonly Statements[]): Statements {
  const servers = files.flatMap((file) => file.servers)
  const named = new Map<string | undefined, Server>(servers.map((server) => [server.name, server]))
  return {
    entries: files.flatMap((file) => file.entries),
    templates: files.flatMap((file) => file.templates),
    servers,
    identity: files.flatMap((file) =>
      file.identity.map((target) => ({
        ...target,
        server: named.get(target.serverName) ?? target.server,
        exchange: target.exchange && { ...target.exchange, via: named.get(target.viaName) },
      })),
    ),
    platform: files.flatMap((file) => file.platform),
    serverPlatforms: files.flatMap((file) => file.serverPlatforms),
    application: files.flatMap((file) => file.application),
    tests: files.flatMap((file) => file.tests),
    observe: files.flatMap((file) => file.observe),
    denials: files.flatMap((file) => file.denials),
    exceptions: files.flatMap((file) => file.exceptions),
    routes: joinRoutes(
      files.map((file) => file.routes),
      named,
    ),
    transmitters: files.flatMap((file) => file.transmitters),
  }
}

function joinRoutes(
  files: readonly RouteStatements[],
  named: ReadonlyMap<string | undefined, Server>,
): RouteStatements {
  return {
    identity: files.flatMap(({ identity }) =>
      identity.map((route) => ({
        ...route,
        servers: route.serverNames.flatMap((name) => named.get(name) ?? []),
        txnToken: route.txnToken && { ...route.txnToken, server: named.get(route.txnToken.serverName) },
      })),
    ),
    platform: files.flatMap(({ platform }) => platform),
    application: files.flatMap(({ application }) => application),
    exceptions: files.flatMap(({ exceptions }) => exceptions),
  }
}

/** `file:line`, or the object of the cluster that says it. */
export function placeText(place: Place): string {
  return place.line > 0 ? `${place.file}:${place.line}` : place.file
}
