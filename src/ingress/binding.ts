/** What binds a request to its caller: the proof of a key, the certificate of the channel, or, by exception, nothing. */

import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Credential } from '../policy/route.ts'
import { type ReceivedSignature, readSignature, verifySignature } from '../proof/httpsig-verify.ts'
import { hashOf } from '../proof/jwt.ts'
import { WIMSE_RULES, WIMSE_TAG } from '../proof/wimse-signature.ts'
import { checkWpt } from '../proof/wpt-check.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { thumbprint } from '../spiffe/jwk.ts'
import { type JwsAlg, nameOfToken } from '../spiffe/jws.ts'
import { verifyJwtSvid } from '../spiffe/jwtsvid.ts'
import { verifyWitSvid } from '../spiffe/witsvid.ts'
import { type AccessToken, lifeOf, tooLong } from './access-token.ts'
import { type Checking, isJwtSvid, type VerifyOptions } from './checking.ts'
import { type Confirmation, confirmationOf, x5tOf } from './confirmation.ts'
import { only, type RawHeaders, valuesOf } from './inbound.ts'

export interface Binding {
  readonly kind: Credential
  readonly jkt: string | undefined
  readonly x5t: string | undefined
  /** Proven by the credential itself: a WIT, a JWT-SVID, the certificate of the channel. */
  readonly spiffeId: SpiffeId | undefined
  /** What has to be used up. */
  readonly proof: UsedProof | undefined
  /** `Content-Digest` as the signature covers it: what the body has to hash to. */
  readonly contentDigest?: string | undefined
}

export interface UsedProof {
  readonly jkt: string
  readonly jti: string
  readonly made: Seconds
  readonly nonce: string | undefined
}

/** The algorithms that DPoP proofs may have; none and HMAC are no algorithms here at all. */
export const ALGS: ReadonlySet<JwsAlg> = new Set([
  'ES256',
  'ES384',
  'ES512',
  'PS256',
  'PS384',
  'PS512',
  'RS256',
])

const NOTHING = { jkt: undefined, x5t: undefined, spiffeId: undefined, proof: undefined } as const

/** Throws what is missing, wrong or weaker than the route takes. */
export function bindingOf(
  options: VerifyOptions,
  checking: Checking,
  token: AccessToken | undefined,
): Binding {
  const { credentials } = checking
  if (isJwtSvid(checking)) return byJwtSvid(options, checking)
  if (!token) return withoutToken(options, checking)
  const confirmation = confirmationOf(token)
  checkScheme(checking, confirmation)
  if (confirmation.x5t !== undefined) checkCertificate(checking, confirmation.x5t)
  if (confirmation.jkt !== undefined) return byProof(options, checking, confirmation)
  if (confirmation.x5t !== undefined)
    return takes(checking, { ...NOTHING, kind: 'mtls', x5t: confirmation.x5t })
  const { client_id: client, azp, sub, iat } = token.claims
  if (credentials.wit !== undefined) return withOwnToken(byWit(options, checking), client ?? azp ?? sub)
  const binding = takes(checking, { ...NOTHING, kind: 'bearer' })
  excepted(options, checking, client ?? azp ?? sub, lifeOf(iat, token.expires, checking.now))
  return binding
}

/** A proof over an unbound token shows who sent it, not whose it is: it has to be the sender's own. */
function withOwnToken(binding: Binding, client: unknown): Binding {
  if (client !== binding.spiffeId) throw new Fault('token_unbound')
  return binding
}

/** Only under an exception of security, whose conditions hold for this very token. */
function excepted(options: VerifyOptions, checking: Checking, client: unknown, life: Seconds): void {
  const { credentials, inbound } = checking
  const exception = options.routes().exceptionOf(inbound.route.name)
  options.bearers.check(exception, {
    client: typeof client === 'string' ? client : '',
    name: hashOf(nameOfToken(credentials.token ?? '')),
    life,
    address: inbound.peer.address,
  })
}

/** RFC 9449 s.7.2: a bound token that comes as Bearer is refused, whatever else came along. */
function checkScheme({ credentials }: Checking, { jkt, x5t }: Confirmation): void {
  const { scheme, dpop } = credentials
  if (jkt !== undefined && scheme !== 'dpop') throw new Fault('token_downgraded')
  if (scheme === 'dpop' && dpop === undefined) throw new Fault('proof_missing')
  if (scheme !== 'dpop' || jkt !== undefined) return
  if (x5t === undefined) throw new Fault('token_unbound')
  // Its proof would prove nothing: no token says whose it has to be.
  throw new Fault('token_unbound', 'the scheme is DPoP, and the token is bound to a certificate alone')
}

function byProof(options: VerifyOptions, checking: Checking, { jkt, x5t }: Confirmation): Binding {
  const { credentials, inbound, urls, ath, now } = checking
  if (credentials.dpop === undefined) throw new Fault('proof_missing')
  const { window, skew, proofs } = options
  const expected = { method: inbound.method, urls, ath, now, window, skew, algs: ALGS, jkt }
  const proof = proofs.check(credentials.dpop, expected)
  const { jti, iat: made, nonce } = proof
  if (proof.jkt !== jkt) throw new Fault('token_stolen')
  return takes(checking, { kind: 'dpop', jkt, x5t, spiffeId: undefined, proof: { jkt, jti, made, nonce } })
}

/** RFC 8705 s.3: the very certificate, which the channel has shown to be held. */
function checkCertificate({ channel }: Checking, x5t: string): void {
  if (!channel.certificate)
    throw new Fault('token_downgraded', 'the token is bound to a certificate, and none came along')
  if (x5tOf(channel.certificate) !== x5t) throw new Fault('token_stolen')
}

function withoutToken(options: VerifyOptions, checking: Checking): Binding {
  const { channel, credentials, identity } = checking
  if (credentials.wit !== undefined) return byWit(options, checking)
  if (channel.spiffeId !== undefined && channel.certificate && identity.servers.length === 0) {
    const { spiffeId } = channel
    return takes(checking, { ...NOTHING, kind: 'mtls', x5t: x5tOf(channel.certificate), spiffeId })
  }
  throw new Fault('token_missing')
}

function byWit(options: VerifyOptions, checking: Checking): Binding {
  const { credentials, ath, now, urls } = checking
  const { wit = '', wpt, txnToken } = credentials
  if (wpt === undefined && credentials.isSigned) return bySignature(options, checking)
  if (wpt === undefined) throw new Fault('proof_missing', 'a Workload-Identity-Token came without its proof')
  const { spiffeId, key, jwk, alg } = verifyWitSvid(wit, options.bundleOf, now)
  const { window, skew } = options
  const tth = txnToken === undefined ? undefined : hashOf(txnToken)
  const { jti, exp } = checkWpt(wpt, { key, alg, urls, wth: hashOf(wit), ath, tth, now, window, skew })
  const jkt = thumbprint(jwk)
  // Its end is what the proof says of when it was made: two proofs of one key never share jti and end.
  const proof = { jkt, jti, made: exp - window - skew, nonce: undefined }
  return takes(checking, { ...NOTHING, kind: 'wpt', jkt, spiffeId, proof })
}

/** The WIMSE profile: what the signature covers is the message as its sender sent it, to one of the public origins. */
function bySignature(options: VerifyOptions, checking: Checking): Binding {
  const { credentials, inbound, now, path, urls } = checking
  const { spiffeId, key, jwk, alg } = verifyWitSvid(credentials.wit ?? '', options.bundleOf, now)
  // Scheme and authority are not covered: the audience stands for both.
  const { method, query = '', headers } = inbound
  const message = { method, scheme: 'https', authority: '', path, query, headers }
  const received = readSignature(message, { tag: WIMSE_TAG })
  const audience = textOf(received, 'wimse-aud')
  if (!urls.includes(audience)) throw new Fault('proof_url')
  const { window, skew } = options
  verifySignature(message, received, { ...WIMSE_RULES, maxAge: window, skew }, { key, alg }, now)
  const jkt = thumbprint(jwk)
  const made = Number(received.parameters.get('created')?.value)
  const proof = { jkt, jti: textOf(received, 'nonce'), made, nonce: undefined }
  const contentDigest = only(headers, 'content-digest')
  if (contentDigest === undefined && hasBody(headers))
    throw new Fault('proof_coverage', 'a body came without the Content-Digest that signs it')
  return takes(checking, { ...NOTHING, kind: 'http-signature', jkt, spiffeId, proof, contentDigest })
}

/** As far as HTTP/1.1 says so; what HTTP/2 brings besides, the service compares. */
function hasBody(headers: RawHeaders): boolean {
  const lengths = valuesOf(headers, 'content-length')
  return valuesOf(headers, 'transfer-encoding').length > 0 || lengths.some((length) => length !== '0')
}

function textOf({ parameters }: ReceivedSignature, name: string): string {
  const value = parameters.get(name)?.value
  return typeof value === 'string' ? value : ''
}

/** Design: a JWT-SVID is a bearer credential, but for one whose SPIFFE ID the channel has proven as well. */
function byJwtSvid(options: VerifyOptions, checking: Checking): Binding {
  const { channel, credentials, identity, now, unmet } = checking
  const { token = '' } = credentials
  const { claims, spiffeId, expires } = verifyJwtSvid(token, identity.audience, options.bundleOf, now)
  const life = lifeOf(claims['iat'], expires, now)
  if (life > identity.maxTtl) unmet(tooLong(life, identity.maxTtl))
  if (channel.spiffeId !== undefined && channel.spiffeId !== spiffeId)
    throw new Fault('token_stolen', 'the JWT-SVID is of another workload than the channel')
  if (channel.spiffeId === undefined) excepted(options, checking, spiffeId, life)
  return takes(checking, { ...NOTHING, kind: 'jwt_svid', spiffeId })
}

function takes({ identity, inbound }: Checking, binding: Binding): Binding {
  if (identity.binding.includes(binding.kind)) return binding
  if (binding.kind === 'bearer') throw new Fault('token_unbound')
  const wanted = identity.binding.join(', ') || 'nothing'
  throw new Fault(
    'proof_missing',
    `the request is bound by ${binding.kind}, and the route ${inbound.route.name} takes ${wanted}`,
    {
      owner: 'identity',
      action: `Bind requests by ${wanted}, or add ${binding.kind} to binding of the route.`,
    },
  )
}
