/** The form of policy files, one schema a layer. Loads zod. */
import * as z from 'zod'
import { duration, parsedBy } from '../base/forms.ts'
import { parseWorkloadId } from '../spiffe/id.ts'
import { parseAddress } from './address.ts'
import {
  parseDate,
  parseHostName,
  parseOrigin,
  parseResource,
  parseServerUrl,
  parseSubject,
} from './parse.ts'
import { entry } from './schema-entries.ts'
import { targetGrant } from './schema-grants.ts'
import { routeException, routeGrant, routeIdentity, routePlatform, transmitter } from './schema-routes.ts'

const DAY = 86_400
const ENTRIES_LIMIT = 20_000
const TARGETS_LIMIT = 5_000
const GRANTS_LIMIT = 5_000
const LIST_LIMIT = 256

const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/, {
  error: 'is not a name: wanted letters, digits, dots, dashes and slashes, at most 128',
})
const text = z.string().min(1).max(256)
const spiffeId = z.string().transform(parsedBy(parseWorkloadId))
const selector = z.string().transform(parsedBy(parseSubject))
const kind = z.enum(['dpop', 'wpt', 'mtls', 'http-signature', 'bearer'])
const until = z.string().transform(parsedBy(parseDate))
const serverUrl = z.string().transform(parsedBy(parseServerUrl))
const path = z.string().min(1).max(4096)

const client = z
  .strictObject({
    id: z
      .string()
      .regex(/^[ -~]{1,256}$/, { error: 'is not a client id: wanted 1 to 256 printable ASCII characters' })
      .optional(),
    auth: z.enum([
      'private_key_jwt',
      'jwt_spiffe',
      'jwt_bearer',
      'tls_client_auth',
      'attest_jwt_client_auth_dpop',
    ]),
    assertion: z.enum(['fresh', 'reused']).optional(),
    key: z.union([z.literal('node'), z.strictObject({ file: path })]).optional(),
  })
  .superRefine(({ id, auth, key, assertion }, context) => {
    const refuse = (member: string, message: string) =>
      context.addIssue({ code: 'custom', path: [member], message })
    if (auth === 'private_key_jwt' && id === undefined)
      refuse('id', 'is missing: private_key_jwt names its client')
    if (auth !== 'private_key_jwt' && key !== undefined)
      refuse('key', `goes with private_key_jwt only: ${auth} shows an SVID`)
    if (assertion !== undefined && auth !== 'jwt_spiffe' && auth !== 'jwt_bearer')
      refuse('assertion', `goes with jwt_spiffe and jwt_bearer only, not with ${auth}`)
  })

const server = z.strictObject({
  name: name
    .refine((given) => given !== 'none', { error: 'is none, which means no server' })
    .describe('How targets name it.'),
  issuer: serverUrl.describe('Issuer identifier, exactly as in its metadata.'),
  token_endpoint: serverUrl
    .optional()
    .describe('Its token endpoint; from its metadata when absent, and then on the origin of the issuer.'),
  jwks_uri: serverUrl
    .optional()
    .describe(
      'Where the keys are that it signs tokens with, for routes; from its metadata when absent, and then on the origin of the issuer.',
    ),
  status_lists: z
    .array(z.string().transform(parsedBy(parseOrigin)))
    .max(LIST_LIMIT)
    .optional()
    .describe(
      'Origins that its tokens may name status lists at, for routes; a token that names one elsewhere is refused.',
    ),
  client: client
    .optional()
    .describe(
      'As which client the agent asks for tokens, and how it shows that; without one, applications bring their own tokens. id: the SPIFFE ID of the caller when absent. key, of private_key_jwt: node (default) or a file. assertion, of jwt_spiffe and jwt_bearer: fresh for each request (default), or reused.',
    ),
})

const exchange = z
  .strictObject({
    subjects: z.array(serverUrl).min(1).max(LIST_LIMIT),
    audiences: z.array(z.string().min(1).max(2048)).max(LIST_LIMIT).optional(),
    subject: z.enum(['required', 'optional']).optional(),
    subject_type: z.enum(['access_token', 'jwt']).optional(),
    actor: z.enum(['none', 'jwt_svid']).optional(),
    via: name.optional(),
  })
  .describe(
    'How the token of whoever called the workload becomes one for this target (RFC 8693). subjects: the issuers of such tokens; an opaque token is taken where the server that exchanges it is one of them. audiences: what such a token may call this workload in aud, beside its SPIFFE ID, its client id and the issuer of the server; one that is meant for others is refused. subject: required (default) or optional. subject_type: access_token (default) or jwt. actor: whether a JWT-SVID of the workload goes along; default none. via: the server that exchanges first, whose grant is then shown to the server of the target (identity chaining: draft-ietf-oauth-identity-chaining, which may still change).',
  )

const identityTarget = z.strictObject({
  name: name.describe('The target; statements of the layers join by it. Egress takes it as Host.'),
  server: z
    .union([
      name,
      z.strictObject({
        issuer: serverUrl.describe('Issuer identifier, exactly as in its metadata.'),
        token_endpoint: serverUrl.optional().describe('Its token endpoint.'),
      }),
    ])
    .describe('The authorization server whose tokens the target takes: its name, or itself, or none.'),
  custody: z.enum(['nothing', 'headers', 'token']).describe('The most that an application may hold.'),
  max_ttl: duration(1, 30 * DAY)
    .optional()
    .describe('The longest life of a token that is proved for. Default: 1h; 120s for bearer.'),
  hash_only: z
    .boolean()
    .optional()
    .describe('Sign for the hash of a token that is not shown. Default: false.'),
  tokenless: z.boolean().optional().describe('Sign without a token. Default: false.'),
  binding: z
    .array(kind)
    .max(3)
    .optional()
    .describe(
      'What requests carry: proofs (dpop, wpt), a signature (http-signature) or a certificate (mtls); bearer is none of these, and an exception of security. Default: dpop.',
    ),
  resource: z
    .string()
    .max(2048)
    .transform(parsedBy(parseResource))
    .optional()
    .describe('What its tokens are for: the resource that is asked for (RFC 8707).'),
  scopes: z
    .array(z.string().regex(/^[!#-[\]-~]{1,256}$/, { error: 'is not a scope (RFC 6749 s.3.3)' }))
    .max(LIST_LIMIT)
    .optional()
    .describe('The scopes that are asked for; a token with further ones is refused.'),
  too_long: z
    .enum(['refuse', 'revoke'])
    .optional()
    .describe(
      'What becomes of a token that lives longer than max_ttl: refused, or used up to max_ttl and then revoked at its server. Default: refuse.',
    ),
  discover: z
    .boolean()
    .optional()
    .describe(
      'Whether the metadata of the target (RFC 9728) must name this server and resource before its first token. Default: false.',
    ),
  exchange: exchange.optional(),
  txn_token: z
    .boolean()
    .optional()
    .describe('Whether a Txn-Token of the caller passes, unmodified. Default: false.'),
})

const tls = z
  .strictObject({
    trust: z.union([z.enum(['system', 'spiffe']), z.strictObject({ file: path })]).optional(),
    peer_id: spiffeId.optional(),
    server_name: z.string().transform(parsedBy(parseHostName)).optional(),
  })
  .refine((given) => (given.trust === 'spiffe') === (given.peer_id !== undefined), {
    error: 'trust: spiffe and peer_id go together',
  })
  .optional()
  .describe(
    'Whom TLS trusts. trust: system (default), spiffe with the SPIFFE ID of the server as peer_id, or a file of CA certificates (PEM). server_name: the name to verify instead of the host.',
  )

const addresses = z
  .array(z.string().max(64).transform(parsedBy(parseAddress)))
  .max(LIST_LIMIT)
  .optional()
  .describe('IP addresses, or ranges, that are dialled though they are loopback, link-local or of this node.')

const serverPlatform = z.strictObject({
  issuer: serverUrl.describe('The issuer, as identity states it.'),
  tls,
  addresses,
})

const platformTarget = z.strictObject({
  name: name.describe('The target.'),
  origins: z
    .array(z.string().transform(parsedBy(parseOrigin)))
    .max(LIST_LIMIT)
    .describe('Where the target is: https://host, or http://localhost:* for every port of a loopback host.'),
  insecure_http: z
    .boolean()
    .optional()
    .describe('Allow plain HTTP to hosts that are not loopback. Default: false.'),
  tls,
  addresses,
  via: z
    .enum(['agent', 'sidecar'])
    .optional()
    .describe(
      'Who connects: the agent, from its own network, or holdfast sidecar, from that of the workload. Default: agent.',
    ),
  redirects: z
    .boolean()
    .optional()
    .describe('Follow redirects to targets, each as a new request through policy. Default: false.'),
  rate: z.int().min(1).max(1_000_000).optional().describe('Requests one instance may make in a second.'),
  concurrency: z.int().min(1).max(10_000).optional().describe('Requests one instance may have open.'),
})

const context = z
  .strictObject({
    time: z.iso.datetime().optional(),
    subject: z.string().max(2048).optional(),
    actors: z.array(z.string().max(2048)).max(32).optional(),
    txn: z.string().max(2048).optional(),
    session_calls: z.int().min(0).optional(),
    session_writes: z.int().min(0).optional(),
    session_targets: z.int().min(0).optional(),
    first_use: z.boolean().optional(),
  })
  .describe(
    'What conditions may ask of the call: time (such as 2030-01-31T09:30:00Z; without it, conditions on time do not hold), subject, actors, txn, session_calls, session_writes, session_targets (all empty or 0 when absent) and first_use (default: true). Without context no condition that asks for any of these holds.',
  )

const test = z.strictObject({
  name: text.describe('What the test shows.'),
  spiffe_id: spiffeId.describe('Who asks.'),
  selectors: z.array(selector).max(64).optional().describe('For conditions; those of the entry when absent.'),
  kind: kind.optional().describe('Default: dpop.'),
  door: z
    .enum(['headers', 'egress', 'token', 'probe'])
    .optional()
    .describe(
      'What is asked for: headers to send, the request itself, the token, or one for a key of the replay lab. Default: headers.',
    ),
  method: z.string().max(32).optional().describe('The HTTP method; none for WPTs.'),
  url: z.string().max(8192).describe('The URL of the request.'),
  token: z.enum(['full', 'hash', 'none']).optional().describe('Default: full.'),
  context: context.optional(),
  expect: z.enum(['allow', 'deny']).describe('What the answer has to be.'),
  reason: z.string().max(64).optional().describe('The reason of the refusal.'),
  rule: name.optional().describe('The name of the grant that has to allow it.'),
})

const deny = z
  .strictObject({
    spiffe_id: spiffeId.optional().describe('Whom; with target too, both must hold.'),
    target: name.optional().describe('What for.'),
    reason: text.describe('Why; shown to whoever is refused.'),
    until: until.optional().describe('The end: a date, which counts to its end, or a time.'),
  })
  .refine((rule) => rule.spiffe_id !== undefined || rule.target !== undefined, {
    error: 'names neither spiffe_id nor target',
  })

const exception = z.strictObject({
  target: name.describe('The target whose tokens are bearer tokens.'),
  binding: z.literal('bearer').describe('What is accepted.'),
  approver: text.describe('Who answers for it.'),
  until: until.describe('The end: a date, which counts to its end, or a time.'),
  max_ttl: duration(1, DAY)
    .optional()
    .describe('The longest life of such a token; over 120s is graded insecure. Default: 120s.'),
})

/** One schema a layer: a file holds only the statements of its own. */
export const LAYER_SCHEMAS = {
  identity: z.strictObject({
    layer: z.literal('identity'),
    entries: z.array(entry).max(ENTRIES_LIMIT).optional(),
    servers: z.array(server).max(LIST_LIMIT).optional(),
    targets: z.array(identityTarget).max(TARGETS_LIMIT).optional(),
    routes: z.array(routeIdentity).max(TARGETS_LIMIT).optional(),
  }),
  platform: z.strictObject({
    layer: z.literal('platform'),
    targets: z.array(platformTarget).max(TARGETS_LIMIT).optional(),
    servers: z.array(serverPlatform).max(LIST_LIMIT).optional(),
    routes: z.array(routePlatform).max(TARGETS_LIMIT).optional(),
  }),
  application: z.strictObject({
    layer: z.literal('application'),
    targets: z
      .array(
        z.strictObject({
          name: name.describe('The target.'),
          grants: z.array(targetGrant).max(GRANTS_LIMIT),
        }),
      )
      .max(TARGETS_LIMIT)
      .optional(),
    routes: z
      .array(
        z.strictObject({ name: name.describe('The route.'), grants: z.array(routeGrant).max(GRANTS_LIMIT) }),
      )
      .max(TARGETS_LIMIT)
      .optional(),
    tests: z.array(test).max(GRANTS_LIMIT).optional(),
  }),
  security: z.strictObject({
    layer: z.literal('security'),
    observe: z
      .strictObject({ approver: text, until })
      .optional()
      .describe(
        'Refusals of policy are recorded and not carried out until then; never those of attestation or keys.',
      ),
    deny: z.array(deny).max(GRANTS_LIMIT).optional(),
    exceptions: z.array(exception).max(LIST_LIMIT).optional(),
    route_exceptions: z.array(routeException).max(LIST_LIMIT).optional(),
    transmitters: z.array(transmitter).max(32).optional(),
  }),
} as const

export type IdentityFile = z.output<typeof LAYER_SCHEMAS.identity>
export type PlatformFile = z.output<typeof LAYER_SCHEMAS.platform>
export type ApplicationFile = z.output<typeof LAYER_SCHEMAS.application>
export type SecurityFile = z.output<typeof LAYER_SCHEMAS.security>

/** JSON Schema (2020-12) of a policy file of any layer. */
export function policyJsonSchema(): Record<string, unknown> {
  const any = z.discriminatedUnion('layer', [
    LAYER_SCHEMAS.identity,
    LAYER_SCHEMAS.platform,
    LAYER_SCHEMAS.application,
    LAYER_SCHEMAS.security,
  ])
  return {
    $id: 'https://holdfast.dev/policy.schema.json',
    title: 'Holdfast policy file',
    ...z.toJSONSchema(any, { io: 'input', unrepresentable: 'any' }),
  }
}
