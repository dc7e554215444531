/** Turns the files of identity and platform, whose form has been checked, into statements with their places. */
import { dirname, resolve } from 'node:path'
import type { Path, YamlFile } from '../base/yaml.ts'
import { pathOf } from '../spiffe/id.ts'
import type { Entry, Place } from './entry.ts'
import type { EntryTemplate } from './entry-template.ts'
import type { ClientAuth, ExchangeRule, ServerPlatform, TlsTrust } from './grant.ts'
import { placesIn, routeIdentities, routePlatforms } from './read-routes.ts'
import type { IdentityFile, PlatformFile } from './schema.ts'
import {
  BEARER_TTL,
  type IdentityStatement,
  type NamedServer,
  NO_STATEMENTS,
  type PolicyContext,
  type Statements,
  SYSTEM_TLS,
} from './statements.ts'

export function placeIn(yaml: YamlFile, ...path: Path): Place {
  return { file: yaml.file, line: yaml.lineOf(path) }
}

/** Relative paths are relative to the file that states them. */
function pathIn(yaml: YamlFile, path: string): string {
  return resolve(dirname(yaml.file), path)
}

const HOUR = 3600

export function identityOf(file: IdentityFile, yaml: YamlFile, context: PolicyContext): Statements {
  const given = [...(file.entries ?? []).entries()]
  const entries = given.flatMap(([index, entry]): Entry | [] => {
    const { spiffe_id: spiffeId, dns_names: dnsNames = [] } = entry
    if (spiffeId === undefined) return []
    const settings = entrySettings(entry, pathOf(spiffeId).slice(1), placeIn(yaml, 'entries', index), context)
    return { ...settings, spiffeId, selectors: [...new Set(entry.selectors)], dnsNames }
  })
  const templates = given.flatMap(([index, entry]): EntryTemplate | [] => {
    const { spiffe_id_template: id, dns_name_templates: dnsNames = [], fallback = false } = entry
    if (id === undefined) return []
    return {
      id,
      selectors: [...new Set(entry.selectors)],
      selectorTemplates: [],
      conditions: [],
      dnsNames,
      isFallback: fallback,
      names: context,
      settings: entrySettings(entry, id.text, placeIn(yaml, 'entries', index), context),
    }
  })
  const servers = (file.servers ?? []).map(
    (server, index): NamedServer => ({
      name: server.name,
      issuer: server.issuer,
      tokenEndpoint: server.token_endpoint,
      jwksUri: server.jwks_uri,
      statusLists: server.status_lists,
      client: server.client && clientOf(server.client, yaml),
      place: placeIn(yaml, 'servers', index),
    }),
  )
  const identity = (file.targets ?? []).map((target, index) => targetOf(target, yaml, index))
  const routes = { ...NO_STATEMENTS.routes, identity: routeIdentities(file, placesIn(yaml)) }
  return { ...NO_STATEMENTS, entries, templates, servers, identity, routes }
}

type FileEntry = NonNullable<IdentityFile['entries']>[number]

function entrySettings(
  entry: FileEntry,
  name: string,
  place: Place,
  { defaults }: PolicyContext,
): EntryTemplate['settings'] {
  return {
    name: entry.name ?? name,
    x509Ttl: entry.x509_ttl ?? defaults.x509Ttl,
    jwtTtl: entry.jwt_ttl ?? defaults.jwtTtl,
    hint: entry.hint ?? '',
    deliver: entry.deliver,
    audiences: entry.audiences ?? [],
    acceptedAt: entry.accepted_at ?? [],
    federatesWith: entry.federates_with ?? [],
    sds: entry.sds ?? {},
    instance: entry.instance ?? 'process',
    isProbe: entry.probe ?? false,
    place,
  }
}

type FileClient = NonNullable<NonNullable<IdentityFile['servers']>[number]['client']>

function clientOf({ id, auth, key, assertion = 'fresh' }: FileClient, yaml: YamlFile): ClientAuth {
  if (auth === 'jwt_spiffe' || auth === 'jwt_bearer') return { method: auth, clientId: id, assertion }
  if (auth !== 'private_key_jwt') return { method: auth, clientId: id }
  const keyFile = typeof key === 'object' ? pathIn(yaml, key.file) : undefined
  return { method: auth, clientId: id ?? '', keyFile }
}

type FileTarget = NonNullable<IdentityFile['targets']>[number]

function targetOf(target: FileTarget, yaml: YamlFile, index: number): IdentityStatement {
  const { name, server, custody, binding = ['dpop'] } = target
  const stated = typeof server === 'object' ? server : undefined
  return {
    name,
    server: stated && { issuer: stated.issuer, tokenEndpoint: stated.token_endpoint, client: undefined },
    serverName: typeof server === 'string' && server !== 'none' ? server : undefined,
    custody,
    maxTtl: target.max_ttl ?? (binding.includes('bearer') ? BEARER_TTL : HOUR),
    hashOnly: target.hash_only ?? false,
    tokenless: target.tokenless ?? false,
    binding,
    resource: target.resource,
    scopes: [...new Set(target.scopes)],
    tooLong: target.too_long ?? 'refuse',
    isDiscovered: target.discover ?? false,
    exchange: target.exchange && exchangeOf(target.exchange),
    viaName: target.exchange?.via,
    passesTransaction: target.txn_token ?? false,
    place: placeIn(yaml, 'targets', index),
  }
}

function exchangeOf(stated: NonNullable<FileTarget['exchange']>): ExchangeRule {
  const {
    subjects,
    audiences = [],
    subject = 'required',
    subject_type: subjectType = 'access_token',
  } = stated
  return {
    subjects,
    audiences,
    isRequired: subject === 'required',
    subjectType,
    hasActor: stated.actor === 'jwt_svid',
    via: undefined,
  }
}

export function platformOf(file: PlatformFile, yaml: YamlFile): Statements {
  const platform = (file.targets ?? []).map((target, index) => ({
    name: target.name,
    origins: target.origins,
    insecureHttp: target.insecure_http ?? false,
    tls: tlsOf(target.tls, yaml),
    addresses: target.addresses ?? [],
    via: target.via ?? 'agent',
    followsRedirects: target.redirects ?? false,
    rate: target.rate,
    concurrency: target.concurrency,
    place: placeIn(yaml, 'targets', index),
  }))
  const serverPlatforms = (file.servers ?? []).map(
    (server, index): ServerPlatform => ({
      issuer: server.issuer,
      tls: tlsOf(server.tls, yaml),
      addresses: server.addresses ?? [],
      place: placeIn(yaml, 'servers', index),
    }),
  )
  const routes = { ...NO_STATEMENTS.routes, platform: routePlatforms(file, placesIn(yaml)) }
  return { ...NO_STATEMENTS, platform, serverPlatforms, routes }
}

type FileTls = NonNullable<PlatformFile['targets']>[number]['tls']

function tlsOf(tls: FileTls, yaml: YamlFile): TlsTrust {
  if (!tls) return SYSTEM_TLS
  const { trust = 'system', peer_id: peerId, server_name: serverName } = tls
  return { trust: typeof trust === 'object' ? { file: pathIn(yaml, trust.file) } : trust, peerId, serverName }
}
