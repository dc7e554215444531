/** What is wrong with authorization servers, and with targets that take their tokens, once all files are joined. */
import { meant } from '../base/nearest.ts'
import type { Problem } from '../base/problem.ts'
import { idOfTrustDomain } from '../spiffe/id.ts'
import { exchangeProblems } from './conflicts-exchange.ts'
import type { Place } from './entry.ts'
import type { Binding, Exception } from './grant.ts'
import { isHostName } from './parse.ts'
import {
  type IdentityStatement,
  type NamedServer,
  type PolicyContext,
  placeText,
  type Statements,
} from './statements.ts'

/** Problems of servers, of targets that use them, and of exceptions. */
export function serverConflicts(statements: Statements, context: PolicyContext): readonly Problem[] {
  const { servers, identity, platform, serverPlatforms, exceptions } = statements
  const excepted = new Map(exceptions.map((exception) => [exception.target, exception]))
  return [
    ...twice(servers, ({ name }) => `the server ${name}`),
    ...twice(servers, ({ issuer }) => `a server of the issuer ${issuer}`),
    ...twice(serverPlatforms, ({ issuer }) => `layer platform, a server of the issuer ${issuer}`),
    ...twice(exceptions, ({ target }) => `an exception for ${target}`),
    ...(context.nodes === 'many' ? servers.flatMap(nodeKeyProblems) : []),
    ...(context.attestation === false ? servers.flatMap(attestationProblems) : []),
    ...identity.flatMap((target) => [
      ...serverNameProblems(target, servers),
      ...hostProblems(target),
      ...tokenProblems(target),
      ...proofProblems(target),
      ...bearerProblems(target, excepted.get(target.name)),
      ...bindingProblems(target),
      ...exchangeProblems(target, servers, context.sharesKeys ? 'one' : context.nodes),
    ]),
    ...[...platform, ...serverPlatforms].flatMap(({ tls, place }) =>
      peerProblems(tls.peerId, place, `${idOfTrustDomain(context.trustDomain)}/`),
    ),
  ]
}

/** The second of two that are called the same; the first would silently lose or win. */
function twice<T extends { readonly place: Place }>(
  statements: readonly T[],
  nameOf: (statement: T) => string,
): readonly Problem[] {
  const first = new Map<string, Place>()
  return statements.flatMap((statement) => {
    const name = nameOf(statement)
    const before = first.get(name)
    if (before)
      return [{ ...statement.place, message: `${name} is there twice; first at ${placeText(before)}` }]
    first.set(name, statement.place)
    return []
  })
}

function nodeKeyProblems({ name, client, place }: NamedServer): readonly Problem[] {
  if (client?.method !== 'private_key_jwt' || client.keyFile !== undefined) return []
  const message = `the key of client ${client.clientId} of the server ${name} is made on each node, and authority.nodes is many: use auth: tls_client_auth with the X.509-SVID, or key: { file: PATH }`
  return [{ ...place, message, reason: 'client_key_not_shared' }]
}

function attestationProblems({ name, client, place }: NamedServer): readonly Problem[] {
  if (client?.method !== 'attest_jwt_client_auth_dpop') return []
  const message = `the server ${name} has auth: ${client.method}, which is off: set tokens.client_attestation: on, wit: on and authority.nodes: one in the configuration, or state another auth`
  return [{ ...place, message }]
}

/** The proof of the attested key is the DPoP proof: there is one only where tokens are bound by it. */
function proofProblems({ name, binding, server, exchange, place }: IdentityStatement): readonly Problem[] {
  const isAttested = [server, exchange?.via].some(
    (each) => each?.client?.method === 'attest_jwt_client_auth_dpop',
  )
  if (!isAttested || binding.includes('dpop')) return []
  const message = `${name}: auth: attest_jwt_client_auth_dpop of its server goes with binding: [dpop] only`
  return [{ ...place, message }]
}

function serverNameProblems(target: IdentityStatement, servers: readonly NamedServer[]): readonly Problem[] {
  const { name, server, serverName, place } = target
  if (serverName !== undefined && !server) {
    const near = meant(
      serverName,
      servers.map((each) => each.name),
    )
    return [{ ...place, message: `${name}: no identity file has the server ${serverName}${near}` }]
  }
  const twin =
    serverName === undefined && server && servers.find((each) => sameIssuer(each.issuer, server.issuer))
  if (!twin) return []
  const message = `${name} states the issuer ${twin.issuer} once more: say server: ${twin.name}, which is at ${placeText(twin.place)}`
  return [{ ...place, message }]
}

const sameIssuer = (a: string, b: string) => a.replace(/\/$/, '') === b.replace(/\/$/, '')

/** Where the agent makes the request or gets the token, the target's name is what callers write as Host. */
function hostProblems({ name, custody, server, place }: IdentityStatement): readonly Problem[] {
  if (isHostName(name) || (custody !== 'nothing' && !server?.client)) return []
  const message = `the name ${JSON.stringify(name)} cannot stand as a Host, by which egress knows the target: wanted lower-case letters, digits and dashes, in labels with dots between them, and no IP address`
  return [{ ...place, message }]
}

function tokenProblems({ name, server, resource, scopes, place }: IdentityStatement): readonly Problem[] {
  if (server?.client || (resource === undefined && scopes.length === 0)) return []
  const message = `${name} has resource or scopes, which are never asked for: its server has no client`
  return [{ ...place, message }]
}

function bearerProblems(target: IdentityStatement, exception: Exception | undefined): readonly Problem[] {
  const { name, binding, custody, server, maxTtl, place } = target
  if (!binding.includes('bearer')) return []
  const refused = [
    [binding.length > 1, 'binding: [bearer] stands alone'],
    [custody !== 'nothing', 'bearer tokens never reach an application: set custody: nothing'],
    [!server?.client, 'the agent has to get bearer tokens itself: state a server with a client'],
    [!exception, `binding: [bearer] wants an exception for ${name} in a security policy file`],
    [
      exception && maxTtl > exception.maxTtl,
      `max_ttl is over the ${exception?.maxTtl}s that security accepts${exception ? ` at ${placeText(exception.place)}` : ''}`,
    ],
  ] as const
  return refused
    .filter(([holds]) => holds)
    .map(([, message]) => ({ ...place, message: `${name}: ${message}` }))
}

/** A token is bound by the proofs that go along; those of a WIT bind none. */
function bindingProblems({ name, binding, server, place }: IdentityStatement): readonly Problem[] {
  if (!server?.client || binding.length === 0 || binding.some((kind) => !OF_WITS.includes(kind))) return []
  const message = `${name}: a WPT or signature binds no token: add dpop to binding, or set server: none`
  return [{ ...place, message }]
}

/** Proofs with the key of a WIT. */
const OF_WITS: readonly Binding[] = ['wpt', 'http-signature']

/** The bundle of the trust domain says nothing about other trust domains. */
function peerProblems(peerId: string | undefined, place: Place, home: string): readonly Problem[] {
  if (peerId === undefined || peerId.startsWith(home)) return []
  return [{ ...place, message: `the peer_id ${peerId} is outside the trust domain: wanted ${home}…` }]
}
