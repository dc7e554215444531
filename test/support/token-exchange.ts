/**
 * Token exchange (RFC 8693) and the JWT bearer grant (RFC 7523 s.2.1) for oidc-provider, which has neither: subject,
 * actor and assertion are verified, the token keeps `sub`, nests `act`, ends with its subject and is bound to the key
 * of the DPoP proof.
 */
import { createPublicKey, type KeyObject, randomUUID } from 'node:crypto'
import { type JWTPayload, jwtVerify } from 'jose'
import type Provider from 'oidc-provider'
import { type Context, errors, type IssuedToken } from 'oidc-provider'
import { applyDpopBinding } from 'oidc-provider/lib/helpers/grant_common.js'
import * as grants from 'oidc-provider/lib/helpers/grants.js'
import { ecPair } from './certificates.ts'
import { signToken } from './tokens.ts'

export interface ExchangeOptions {
  /** Who vouches for subject tokens, and for grants of the other server, by `iss`. */
  readonly subjects: Readonly<Record<string, KeyObject>>
  /** The keys of JWT-SVIDs, which come as actor tokens. */
  readonly actors?: () => readonly KeyObject[]
  /** How long a token for a subject lives, unless the subject's ends before. */
  readonly ttlSeconds?: number
}

const TYPE = 'urn:ietf:params:oauth:token-type'
const GRANT = 'urn:ietf:params:oauth:grant-type'
export const EXCHANGE = `${GRANT}:token-exchange`
export const JWT_BEARER = `${GRANT}:jwt-bearer`
const TYPES: readonly unknown[] = [`${TYPE}:access_token`, `${TYPE}:jwt`]
const PARAMETERS = ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type']
const MORE = ['requested_token_type', 'audience', 'resource', 'scope']

/** `act` of tokens that are about to be saved, for `extraTokenClaims`. */
export type Acts = WeakMap<object, unknown>

/** Registers both grants; the public key of the grants that it makes for other servers. */
export function registerExchange(provider: Provider, options: ExchangeOptions, acts: Acts): KeyObject {
  const pair = ecPair()
  const used = new Set<string>()
  const exchange = async (context: Context) => {
    const { params } = context.oidc
    if (!params['subject_token'] || !TYPES.includes(params['subject_token_type']))
      throw new errors.InvalidRequest('subject_token and subject_token_type are required')
    const subject = await verified(params['subject_token'], options.subjects)
    const act = await actorOf(provider, context, options, subject)
    if (params['requested_token_type'] === `${TYPE}:jwt`) {
      const claims = grantClaims(provider.issuer, params['audience'], { ...subject, act })
      const made = signToken({ alg: 'ES256', typ: 'JWT' }, claims, pair)
      context.body = {
        access_token: made,
        issued_token_type: `${TYPE}:jwt`,
        token_type: 'N_A',
        expires_in: 60,
      }
      return
    }
    await issue(provider, context, { subject, act, acts, options, issuedTokenType: `${TYPE}:access_token` })
  }
  const bearer = async (context: Context) => {
    const subject = await verified(context.oidc.params['assertion'], options.subjects, provider.issuer)
    const jti = String(subject.jti)
    if (used.has(jti)) throw new errors.InvalidGrant('the assertion was used before')
    used.add(jti)
    await issue(provider, context, { subject, act: subject['act'], acts, options })
  }
  provider.registerGrantType(EXCHANGE, exchange, [...PARAMETERS, ...MORE], ['audience', 'resource'])
  provider.registerGrantType(JWT_BEARER, bearer, ['assertion', 'resource', 'scope'], ['resource'])
  return createPublicKey(pair.privateKey)
}

async function verified(
  token: unknown,
  keys: ExchangeOptions['subjects'],
  audience?: string,
): Promise<JWTPayload> {
  try {
    const { iss } = JSON.parse(Buffer.from(String(token).split('.')[1] ?? '', 'base64url').toString())
    const key = keys[iss]
    if (!key) throw new Error('unknown issuer')
    const checks = { requiredClaims: ['sub', 'exp'], ...(audience ? { audience } : {}) }
    return (await jwtVerify(String(token), key, checks)).payload
  } catch {
    throw new errors.InvalidGrant('the token that is shown is not valid')
  }
}

/** RFC 8693 s.4.1: the newest actor is outermost. */
async function actorOf(
  provider: Provider,
  { oidc: { params } }: Context,
  { actors = () => [] }: ExchangeOptions,
  subject: JWTPayload,
): Promise<unknown> {
  const earlier = subject['act'] === undefined ? {} : { act: subject['act'] }
  const token = params['actor_token']
  if (token === undefined) return subject['act']
  for (const key of actors()) {
    const found = await jwtVerify(String(token), key, { audience: provider.issuer }).catch(() => undefined)
    if (found) return { sub: found.payload.sub, ...earlier }
  }
  throw new errors.InvalidRequest('the actor token is not valid')
}

function grantClaims(iss: string, aud: unknown, { sub, exp, act }: JWTPayload): object {
  const iat = Math.floor(Date.now() / 1000)
  const end = Math.min(Number(exp), iat + 60)
  return { iss, aud, sub, iat, exp: end, jti: randomUUID(), ...(act === undefined ? {} : { act }) }
}

interface Issuing {
  readonly subject: JWTPayload
  readonly act: unknown
  readonly acts: Acts
  readonly options: ExchangeOptions
  readonly issuedTokenType?: string
}

async function issue(provider: Provider, context: Context, issuing: Issuing): Promise<void> {
  const { subject, act, acts, options, issuedTokenType } = issuing
  const proof = await grants.validateDpop(provider, context)
  const [server] = await grants.resolveRequestedResources(provider, context)
  const scopes = [...grants.validateClientScope(provider, context)]
  const left = Math.floor(Number(subject.exp) - Date.now() / 1000)
  const token: IssuedToken = new provider.AccessToken({
    accountId: subject.sub,
    client: context.oidc.client,
    gty: 'token-exchange',
    expiresIn: Math.min(options.ttlSeconds ?? 120, left),
  })
  if (server) token.resourceServer = server
  token.scope = scopes.filter((scope) => !server || server.scopes.has(scope)).join(' ')
  await applyDpopBinding(provider, context, proof, token)
  grants.checkDpopRequired(provider, context, proof)
  if (act !== undefined) acts.set(token, act)
  context.body = grants.buildTokenResponse(provider, {
    accessToken: await token.save(),
    expiresIn: token.expiration,
    scope: token.scope,
    tokenType: token.tokenType,
    issuedTokenType,
  })
}
