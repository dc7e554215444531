/** The form of routes in policy files, one schema a layer. Loads zod. */
import * as z from 'zod'
import { duration, parsedBy } from '../base/forms.ts'
import { parseSpiffeId, parseWorkloadId } from '../spiffe/id.ts'
import { parseAddress } from './address.ts'
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
} from './forms-routes.ts'
import { parseDate, parseOrigin, parsePath, parseServerUrl, parseSubject } from './parse.ts'

const DAY = 86_400

const name = z.string().regex(NAME, { error: NAME_ERROR })
const text = z.string().min(1).max(256)
const path = z.string().transform(parsedBy(parsePath))
const address = z.string().max(64).transform(parsedBy(parseAddress))
const scope = z.string().regex(SCOPE, { error: SCOPE_ERROR })

const parseVerifier = (given: string) =>
  given.startsWith('spiffe://') ? parseWorkloadId(given) : parseSubject(given)

export const routeIdentity = z.strictObject({
  name: name.describe('The route; statements of the layers join by it.'),
  servers: z.array(name).max(LIST_LIMIT).optional().describe('Servers whose tokens are taken, by name.'),
  audience: z
    .array(z.string().min(1).max(2048))
    .max(LIST_LIMIT)
    .optional()
    .describe('Audiences of tokens; one has to be in aud. Without any, no token is taken.'),
  binding: z
    .array(z.enum(['dpop', 'mtls', 'wpt', 'http-signature', 'jwt_svid', 'bearer']))
    .max(6)
    .optional()
    .describe('What requests may be bound by; bearer only under an exception of security. Default: dpop.'),
  max_ttl: duration(1, 30 * DAY)
    .optional()
    .describe('The longest life of a token. Default: 1h.'),
  act_depth: z.int().min(0).max(8).optional().describe('How many actors a token may name. Default: 0.'),
  nonce: z.enum(['off', 'required']).optional().describe('Whether proofs need a nonce. Default: off.'),
  introspect: z
    .boolean()
    .optional()
    .describe('Ask the server about each token too (RFC 7662), within seconds. Default: false.'),
  status: z
    .enum(['if_present', 'required'])
    .optional()
    .describe(
      'Whether each token has to name a status list (draft-ietf-oauth-status-list); one that does is always looked up. Default: if_present.',
    ),
  txn_token: z
    .strictObject({
      server: name,
      audience: z.string().min(1).max(2048),
      presence: z.enum(['if_present', 'required']).optional(),
    })
    .optional()
    .describe(
      'The server whose Txn-Tokens are verified (draft-ietf-oauth-transaction-tokens), their aud, which is the trust domain, and whether each request needs one (presence; default: if_present). Bindings have to cover them: wpt, http-signature, or mutual TLS. Default: they are not looked at.',
    ),
  hand_out: z
    .enum(['claims', 'handle'])
    .optional()
    .describe(
      'What the application gets beside the claims: nothing, or a handle that exchange takes, another for each transaction of verified Txn-Tokens; given on the node only. Default: claims.',
    ),
})

const hop = z
  .strictObject({
    name: name,
    spiffe_id: z.string().transform(parsedBy(parseWorkloadId)).optional(),
    addresses: z.array(address).max(LIST_LIMIT).optional(),
    certificate: z.enum(['none', 'client_cert', 'xfcc']).optional(),
  })
  .refine((given) => given.spiffe_id !== undefined || given.addresses !== undefined, {
    error: 'names neither spiffe_id nor addresses: a hop has to be known by something',
  })

export const routePlatform = z.strictObject({
  name: name.describe('The route.'),
  origins: z
    .array(z.string().transform(parsedBy(parseOrigin)))
    .max(LIST_LIMIT)
    .describe('Origins as callers use them: https://host. Proofs have to be for one of these.'),
  received: path.optional().describe('The path prefix as it arrives here. Default: /.'),
  public: path.optional().describe('The same prefix as callers send it. Default: as received.'),
  hops: z
    .array(hop)
    .max(16)
    .optional()
    .describe(
      'Proxies that requests come through, each known by the SPIFFE ID of its certificate or by its addresses. certificate: how it hands on the certificate of its caller: none (default), or client_cert or xfcc of a hop with a spiffe_id.',
    ),
  scope: name
    .optional()
    .describe('Where a proof counts as used: routes of one scope share it. Default: the name.'),
  verifiers: z
    .array(z.string().transform(parsedBy(parseVerifier)))
    .max(LIST_LIMIT)
    .optional()
    .describe(
      'The services that may ask about its requests: selectors such as unix:uid:1000, or SPIFFE IDs.',
    ),
})

export const routeGrant = z.strictObject({
  name: name.optional().describe('How audit and tests name the grant.'),
  callers: z
    .array(z.string().max(2048).transform(parsedBy(parseRouteCaller)))
    .max(GRANTS_LIMIT)
    .describe('SPIFFE IDs, prefixes ending in /**, or client:SERVER/CLIENT_ID.'),
  methods: z
    .array(z.string().regex(METHOD, { error: METHOD_ERROR }))
    .max(32)
    .describe('HTTP methods, or "*".'),
  paths: z.array(path).max(LIST_LIMIT).describe('Whole public paths, or prefixes ending in /**.'),
  scopes: z.array(scope).max(LIST_LIMIT).optional().describe('Scopes that the token needs, all of them.'),
  when: z.string().min(1).max(1_000).optional().describe('A CEL condition; only true allows.'),
})

export const routeException = z.strictObject({
  route: name.describe('The route that takes bearer tokens.'),
  binding: z.literal('bearer').describe('What is accepted.'),
  approver: text.describe('Who answers for it.'),
  until: z.string().transform(parsedBy(parseDate)).describe('The end: a date, or a time.'),
  clients: z.array(text).min(1).max(LIST_LIMIT).describe('client_id or sub of the tokens.'),
  max_ttl: duration(1, DAY).optional().describe('The longest life of such a token. Default: 120s.'),
  rate: z.int().min(1).max(100_000).optional().describe('Requests a second, of each client.'),
  sources: z.array(address).max(LIST_LIMIT).optional().describe('Addresses they come from.'),
})

const parseSpiffePattern = (given: string) => {
  parseSpiffeId(given.replace(/\/\*\*$/, ''))
  return given
}
const serverUrl = z.string().max(2048).transform(parsedBy(parseServerUrl))

export const transmitter = z.strictObject({
  issuer: serverUrl.describe('Who signs the security events: iss of its SETs (RFC 8417).'),
  jwks_uri: serverUrl.describe('Where its keys are.'),
  audience: z.string().min(1).max(2048).describe('aud of its SETs: what it calls this receiver.'),
  subjects: z
    .array(
      z.union([
        z.strictObject({
          issuer: serverUrl,
          sub: z
            .string()
            .regex(/^[^*]{0,1024}\*?$/, { error: 'has a star that is not at its end' })
            .min(1),
        }),
        z.strictObject({ spiffe_id: z.string().max(2048).transform(parsedBy(parseSpiffePattern)) }),
      ]),
    )
    .min(1)
    .max(LIST_LIMIT)
    .describe(
      'Whom it may revoke, and nobody else: issuer and sub, which may end in a star; or spiffe_id, which may end in /**.',
    ),
  token_file: z
    .string()
    .max(4096)
    .regex(/^\//, { error: 'is not an absolute path' })
    .describe('The bearer token that it shows when it pushes (RFC 8935), or that is shown to it (RFC 8936).'),
  poll: serverUrl
    .optional()
    .describe('Where its SETs are fetched (RFC 8936). Without it, it pushes to events.listen.'),
})
