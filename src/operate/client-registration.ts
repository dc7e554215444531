/**
 * What an authorization server has to know of the agent's client there (RFC 7591 s.2): facts of the running policy and
 * configuration. Only keys that outlive the agent are shown; those that die with it are behind a `jwks_uri`.
 */
import { Fault } from '../base/fault.ts'
import { meant } from '../base/nearest.ts'
import { type ClientJwk, type ClientKeys, JWKS_MAX_AGE, type KeyClient } from '../egress/client-key.ts'
import { clientJwksPath } from '../issue/bundle-endpoint.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { ClientAuth, Server } from '../policy/grant.ts'
import { type ClientUse, useOf } from './client-use.ts'

/** Client metadata under its registered names: RFC 7591, RFC 8705, RFC 9449, draft-ietf-oauth-spiffe-client-auth. */
export interface ClientMetadata {
  readonly client_id: string
  readonly token_endpoint_auth_method: string
  readonly token_endpoint_auth_signing_alg?: string
  readonly jwks_uri?: string
  readonly jwks?: { readonly keys: readonly ClientJwk[] }
  readonly tls_client_auth_san_uri?: string
  readonly spiffe_id?: string
  readonly spiffe_bundle_endpoint?: string
  readonly grant_types: readonly string[]
  readonly response_types: readonly string[]
  readonly redirect_uris: readonly string[]
  readonly scope?: string
  readonly dpop_bound_access_tokens: boolean
  readonly tls_client_certificate_bound_access_tokens: boolean
}

/** What to enter at one server. */
export interface ClientRegistration {
  readonly server: string
  readonly issuer: string
  /** One for each client id: where policy names none, each workload is a client of its own. */
  readonly clients: readonly ClientMetadata[]
  /** The targets that take the server's tokens, with what is asked for. */
  readonly targets: ClientUse['targets']
  /** What the metadata cannot say. */
  readonly notes: readonly string[]
}

export interface RegistrationOptions {
  readonly book: RuleBook
  readonly keys: ClientKeys
  /** Where others reach the bundle endpoint, without a slash at its end; throws config_invalid when they cannot. */
  readonly endpoint: () => string
  /** The file of the CA that signs X.509-SVIDs; without one it is made at each start. */
  readonly caFile: string | undefined
}

const CLIENTS_LIMIT = 256

/** What to enter at the server that policy calls `name`; throws not_found, config_invalid, policy_writable. */
export function registrationAt(options: RegistrationOptions, name: string): ClientRegistration {
  const { book } = options
  const server = book.servers.get(name)
  const known = [...book.servers.keys()]
  if (!server) {
    throw new Fault('not_found', `policy names no server ${JSON.stringify(name)}${meant(name, known)}`, {
      action: `Use a name from \`servers\` of identity${known.length > 0 ? `: ${known.slice(0, 16).join(', ')}` : ''}.`,
      owner: 'identity',
    })
  }
  const { client, issuer } = server
  if (!client)
    throw new Fault(
      'not_found',
      `policy states no client for the server ${name}: the agent asks for no token there`,
      {
        action: `State \`client\` for the server ${name} in the identity file.`,
        owner: 'identity',
      },
    )
  const use = useOf(book, server)
  const found = clientsOf(options, { name, server, client, use })
  const clients = found.slice(0, CLIENTS_LIMIT)
  const left = found.length - clients.length
  const more = left > 0 ? [`${left} more clients are not shown`] : []
  return {
    server: name,
    issuer,
    clients,
    targets: use.targets,
    notes: [...notesOf(options, client, use), ...more],
  }
}

/** A client in policy and its use. */
interface Stated {
  readonly name: string
  readonly server: Server
  readonly client: ClientAuth
  readonly use: ClientUse
}

function clientsOf(options: RegistrationOptions, stated: Stated): readonly ClientMetadata[] {
  const { client, use } = stated
  if (client.method === 'private_key_jwt')
    return [{ client_id: client.clientId, ...keyMembers(options, stated, client), ...use.metadata }]
  return use.callers.map((entry) => ({
    client_id: client.clientId ?? entry.spiffeId,
    ...svidMembers(options, client.method, entry),
    ...use.metadata,
  }))
}

type AuthMembers = Omit<ClientMetadata, 'client_id' | keyof ClientUse['metadata']>

function keyMembers(
  { keys, endpoint }: RegistrationOptions,
  { name, server }: Stated,
  client: KeyClient,
): AuthMembers {
  const token_endpoint_auth_method = client.method
  if (client.keyFile !== undefined) {
    const [jwk, ...others] = keys.jwks(client, server)
    if (!jwk) throw new Fault('bug')
    const jwks = { keys: [jwk, ...others] }
    return { token_endpoint_auth_method, token_endpoint_auth_signing_alg: jwk.alg, jwks }
  }
  const jwks_uri = `${reachable(endpoint, client)}${clientJwksPath(name)}`
  return { token_endpoint_auth_method, token_endpoint_auth_signing_alg: 'ES256', jwks_uri }
}

/** The endpoint's place; its absence is told with what else a node key's owner may do. */
function reachable(endpoint: () => string, { clientId }: KeyClient): string {
  try {
    return endpoint()
  } catch (caught) {
    const fault = Fault.from(caught)
    throw new Fault(
      fault.reason,
      `the key of client ${clientId} ends with the agent, so that the server must fetch it: ${fault.message}`,
      {
        action: `${fault.action} Or use auth: tls_client_auth with the X.509-SVID, or key: { file: PATH }.`,
        owner: fault.owner,
      },
    )
  }
}

function svidMembers(
  { endpoint }: RegistrationOptions,
  method: ClientAuth['method'],
  entry: Entry,
): AuthMembers {
  const { spiffeId } = entry
  switch (method) {
    case 'jwt_spiffe':
      return {
        token_endpoint_auth_method: 'spiffe_jwt',
        spiffe_id: spiffeId,
        spiffe_bundle_endpoint: `${endpoint()}/bundle`,
      }
    case 'jwt_bearer':
      return { token_endpoint_auth_method: 'private_key_jwt', jwks_uri: `${endpoint()}/keys` }
    case 'attest_jwt_client_auth_dpop':
      return {
        token_endpoint_auth_method: method,
        spiffe_id: spiffeId,
        spiffe_bundle_endpoint: `${endpoint()}/bundle`,
      }
    default:
      return { token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_san_uri: spiffeId }
  }
}

function notesOf(options: RegistrationOptions, client: ClientAuth, use: ClientUse): readonly string[] {
  const shared =
    client.clientId !== undefined && client.method !== 'private_key_jwt' && use.callers.length > 1
      ? [
          `${use.callers.length} SPIFFE IDs are the client ${client.clientId}: a server that takes one SPIFFE ID a client refuses the others; leave the client id out of policy to have a client for each`,
        ]
      : []
  const unused = use.targets.length === 0 ? ['no target takes tokens of this server yet'] : []
  const idle =
    use.callers.length === 0 && use.targets.length > 0
      ? ['no entry may call a target of this server yet']
      : []
  return [...methodNotes(options, client), ...shared, ...unused, ...idle, ...use.notes]
}

function methodNotes({ caFile }: RegistrationOptions, client: ClientAuth): readonly string[] {
  switch (client.method) {
    case 'private_key_jwt':
      return client.keyFile === undefined
        ? [
            `the server has to fetch jwks_uri again when ${JWKS_MAX_AGE} s are over: keys change, and end with the agent`,
          ]
        : ['the key is the mounted file: register its JWK Set again when the file changes']
    case 'tls_client_auth':
      return [
        caFile === undefined
          ? 'the CA bundle is made at each start of the agent: take it from the bundle endpoint or `holdfast fetch bundle --write DIR`, or set authority.ca to keep one'
          : `the CA bundle is the root of ${caFile}; \`holdfast fetch bundle --write DIR\` writes it too`,
        'certificates live for an hour or what x509_ttl says: register the SPIFFE ID, never a certificate',
      ]
    case 'jwt_spiffe':
    case 'jwt_bearer':
      return ['the assertion is a JWT-SVID: its sub is the SPIFFE ID, its aud the issuer alone']
    case 'attest_jwt_client_auth_dpop':
      return [
        'the attestation is a WIT-SVID over the key of the DPoP proof: the server has to trust the WIT keys of the bundle',
      ]
  }
}
