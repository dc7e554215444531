/** The embedded authority of one node: a root, an optional intermediate, JWT and WIT keys, all in memory. */
import { randomBytes } from 'node:crypto'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Live } from '../base/live.ts'
import { generateKey, type HeldKey } from '../keys/signer.ts'
import type { Alg } from '../proof/signer.ts'
import type { Bundle, KeyAuthority } from '../spiffe/bundle.ts'
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { makeJwtSvid } from '../spiffe/jwtsvid.ts'
import { makeWitSvid } from '../spiffe/witsvid.ts'
import type { Authority, IssuedX509, X509Ask } from './authority.ts'
import { type CertificateSigner, keyIdOf, makeCertificate } from './certificate.ts'
import { Rotation } from './rotation.ts'

export interface EmbeddedOptions {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly algorithm: Alg
  /** Sign leaves with an intermediate below the root. */
  readonly intermediate: boolean
  readonly caTtl: Seconds
  readonly keyTtl: Seconds
  readonly wit: boolean
  /** A CA of the operator's instead of one made at start. */
  readonly ca?: CertificateAuthority
}

/** A certificate with the key that signs below it; `chain` leads from it towards the root, root left out. */
export interface CertificateAuthority {
  readonly root: Buffer
  readonly chain: readonly Buffer[]
  readonly subject: string
  readonly keyId: Buffer
  readonly signer: CertificateSigner
}

interface TokenKey extends KeyAuthority {
  readonly kid: string
  readonly held: HeldKey
}

const REFRESH_HINT: Seconds = 60
// Five polls of the bundle pass before a new key signs (SPIFFE_Federation.md s.6 recommends three to five).
const LEAD: Seconds = REFRESH_HINT * 5
// Clocks differ: a leaf is valid a little before it is made.
const BACKDATE: Seconds = 10
const TICK_MS = 1_000

/** Starts with fresh keys; they end with the process. */
export function embeddedAuthority(options: EmbeddedOptions): Authority {
  const { clock } = options
  const now = nowSeconds(clock)
  const ca = new Rotation(caRotation(options), now)
  const jwt = new Rotation(keyRotation(options), now)
  const wit = options.wit ? new Rotation(keyRotation(options), now) : undefined
  const bundle = new Live(bundleOf(options.trustDomain, ca, jwt, wit, 1n))
  const tick = () => {
    const at = nowSeconds(clock)
    const changed = [ca, jwt, wit].map((rotation) => rotation?.advance(at) ?? false).includes(true)
    if (changed) bundle.set(bundleOf(options.trustDomain, ca, jwt, wit, bundle.get().sequence + 1n))
    cancel = clock.after(TICK_MS, tick)
  }
  let cancel = clock.after(TICK_MS, tick)
  return {
    bundle,
    issueX509: (ask) => issueX509(ask, ca, nowSeconds(clock)),
    issueJwt: ({ spiffeId, audience, ttl }) => {
      const at = nowSeconds(clock)
      const { key, ends } = jwt.signing
      const expires = Math.min(at + ttl, ends)
      return { token: makeJwtSvid({ spiffeId, audience, now: at, expires, kid: key.kid }, key.held), expires }
    },
    issueWit: ({ spiffeId, publicJwk, alg, ttl }) => {
      const at = nowSeconds(clock)
      const { key, ends } = (wit ?? jwt).signing
      const expires = Math.min(at + ttl, ends)
      return {
        token: makeWitSvid({ spiffeId, publicJwk, jwkAlg: alg, now: at, expires, kid: key.kid }, key.held),
        expires,
      }
    },
    stop: () => cancel(),
  }
}

function issueX509(ask: X509Ask, ca: Rotation<CertificateAuthority>, now: Seconds): IssuedX509 {
  const { key, ends } = ca.signing
  const notBefore = now - BACKDATE
  const notAfter = Math.min(now + ask.ttl, ends)
  const leaf = makeCertificate(
    {
      subject: ask.dnsNames[0] ?? 'workload',
      spki: ask.spki,
      issuer: key.subject,
      issuerKeyId: key.keyId,
      notBefore,
      notAfter,
      spiffeId: ask.spiffeId,
      dnsNames: ask.dnsNames,
      pathLength: undefined,
    },
    key.signer,
  )
  return { chain: [leaf, ...key.chain], notBefore, notAfter }
}

function caRotation(options: EmbeddedOptions) {
  const make = (published: Seconds, ends: Seconds) => options.ca ?? makeCa(options, published, ends)
  return { lifetime: options.caTtl, lead: leadOf(options.caTtl), make }
}

function keyRotation(options: EmbeddedOptions) {
  return {
    lifetime: options.keyTtl,
    lead: leadOf(options.keyTtl),
    make: () => makeTokenKey(options.algorithm),
  }
}

/** Short lives, as tests and cautious operators choose them, still leave the successor half of its own to sign. */
function leadOf(lifetime: Seconds): Seconds {
  return Math.min(LEAD, lifetime / 4)
}

function makeTokenKey(alg: Alg): TokenKey {
  const held = generateKey(alg)
  return { kid: randomBytes(16).toString('base64url'), held, key: held.publicKey, jwk: held.publicJwk }
}

function makeCa(options: EmbeddedOptions, published: Seconds, notAfter: Seconds): CertificateAuthority {
  const id = idOfTrustDomain(options.trustDomain)
  const held = generateKey(options.algorithm)
  const spki = spkiOf(held)
  const notBefore = published - BACKDATE
  const subject = `${options.trustDomain} root ${randomBytes(4).toString('hex')}`
  const common = { notBefore, notAfter, spiffeId: id, dnsNames: [] }
  const keyId = keyIdOf(spki)
  const pathLength = options.intermediate ? 1 : 0
  const signer = certificateSigner(held)
  const root = makeCertificate(
    { ...common, subject, spki, issuer: subject, issuerKeyId: keyId, pathLength },
    signer,
  )
  if (!options.intermediate) return { root, chain: [], subject, keyId, signer }
  const below = generateKey(options.algorithm)
  const belowSpki = spkiOf(below)
  const belowSubject = `${options.trustDomain} intermediate ${randomBytes(4).toString('hex')}`
  const certificate = makeCertificate(
    { ...common, subject: belowSubject, spki: belowSpki, issuer: subject, issuerKeyId: keyId, pathLength: 0 },
    signer,
  )
  held.destroy()
  return {
    root,
    chain: [certificate],
    subject: belowSubject,
    keyId: keyIdOf(belowSpki),
    signer: certificateSigner(below),
  }
}

function spkiOf(held: HeldKey): Buffer {
  return held.publicKey.export({ format: 'der', type: 'spki' })
}

function certificateSigner(held: HeldKey): CertificateSigner {
  return { alg: held.alg, signDer: (input) => held.signDer(input) }
}

function bundleOf(
  trustDomain: TrustDomain,
  ca: Rotation<CertificateAuthority>,
  jwt: Rotation<TokenKey>,
  wit: Rotation<TokenKey> | undefined,
  sequence: bigint,
): Bundle {
  const keys = (rotation: Rotation<TokenKey> | undefined) =>
    new Map((rotation?.published ?? []).map(({ key }) => [key.kid, { key: key.key, jwk: key.jwk }]))
  return {
    trustDomain,
    x509Authorities: ca.published.map(({ key }) => key.root),
    jwtAuthorities: keys(jwt),
    witAuthorities: keys(wit),
    sequence,
    refreshHintSeconds: REFRESH_HINT,
  }
}
