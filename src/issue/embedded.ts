/** The embedded authority of one node: a root, an optional intermediate, JWT and WIT keys, all in memory. */
import { randomBytes } from 'node:crypto'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { Live } from '../base/live.ts'
import { generateKey, type HeldKey } from '../keys/signer.ts'
import type { Alg } from '../proof/signer.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { makeJwtSvid } from '../spiffe/jwtsvid.ts'
import { makeWitSvid } from '../spiffe/witsvid.ts'
import type { Authority, IssuedToken, IssuedX509, X509Ask } from './authority.ts'
import { type CertificateSigner, keyIdOf, makeCertificate } from './certificate.ts'
import { Rotation, type Slot } from './rotation.ts'
import { type SharedKeySet, SharedKeys, type TokenKey } from './shared-keys.ts'

export interface EmbeddedOptions {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly algorithm: Alg
  /** Sign leaves with an intermediate below the root. */
  readonly intermediate: boolean
  readonly caTtl: Seconds
  readonly keyTtl: Seconds
  readonly wit: boolean
  /** Put into JWT-SVIDs as `iss`. */
  readonly issuer?: string | undefined
  /**
   * A CA of the operator's instead of one made at start. After a change a new root is published before it signs; below a root
   * that is published a new certificate signs at once. Open streams have SVIDs of it with their renewal at the latest.
   */
  readonly ca?: Live<CertificateAuthority>
  /** JWT and WIT keys that other nodes have too, instead of keys made at start. */
  readonly sharedKeys?: Live<SharedKeySet>
}

/** A certificate with the key that signs below it; `chain` leads from it towards the root, root left out. */
export interface CertificateAuthority {
  readonly root: Buffer
  readonly chain: readonly Buffer[]
  /** Its common name, or its whole Name in DER. */
  readonly subject: string | Buffer
  readonly keyId: Buffer
  /** When the first certificate from it to the root ends, and when that one began. */
  readonly notAfter: Seconds
  readonly notBefore: Seconds
  readonly signer: CertificateSigner
}

const REFRESH_HINT: Seconds = 60
// Five polls of the bundle pass before a new key signs (SPIFFE_Federation.md s.6 recommends three to five).
const LEAD: Seconds = REFRESH_HINT * 5
// Clocks differ: a leaf is valid a little before it is made.
const BACKDATE: Seconds = 10
const TICK_MS = 1_000

/** Starts with fresh keys; they end with the process. */
export function embeddedAuthority(options: EmbeddedOptions): Authority {
  const { clock, trustDomain } = options
  const now = nowSeconds(clock)
  const rotations: Rotations = {
    ca: caRotation(options, now),
    jwt: tokenKeys(options, 'jwt', now),
    wit: options.wit ? tokenKeys(options, 'wit', now) : undefined,
  }
  // A restart makes new keys, and consumers keep the document with the higher sequence: changes come at most once a
  // tick, so milliseconds stay ahead of them.
  const bundle = new Live(bundleOf(trustDomain, rotations, BigInt(clock.now())))
  const refresh = () => {
    const at = nowSeconds(clock)
    const isChanged = Object.values(rotations).map((rotation) => rotation?.advance(at) ?? false)
    if (isChanged.includes(true)) bundle.set(bundleOf(trustDomain, rotations, bundle.get().sequence + 1n))
  }
  const tick = () => {
    refresh()
    cancel = clock.after(TICK_MS, tick)
  }
  let cancel = clock.after(TICK_MS, tick)
  const unwatch = options.ca?.watch((ca) => {
    rotations.ca.offer(operatorSlot(ca, nowSeconds(clock)), ({ root }) => root.equals(ca.root))
    const next = bundleOf(trustDomain, rotations, bundle.get().sequence + 1n)
    if (!isSame(next.x509Authorities, bundle.get().x509Authorities)) bundle.set(next)
  })
  return {
    bundle,
    caLife: () => rotations.ca.signing.key,
    issueX509: (ask) => issueX509(ask, rotations.ca, nowSeconds(clock)),
    issueJwt: ({ spiffeId, audience, ttl }) =>
      issueToken(rotations.jwt, ttl, nowSeconds(clock), (times, { kid, held }) =>
        makeJwtSvid({ spiffeId, audience, issuer: options.issuer, ...times, kid }, held),
      ),
    issueWit: ({ spiffeId, publicJwk, alg, ttl }) =>
      issueToken(rotations.wit, ttl, nowSeconds(clock), (times, { kid, held }) =>
        makeWitSvid({ spiffeId, publicJwk, jwkAlg: alg, ...times, kid }, held),
      ),
    stop: () => {
      cancel()
      unwatch?.()
    },
  }
}

/** Keys of this node alone, or those of a shared set. */
type TokenKeys = Pick<Rotation<TokenKey>, 'signing' | 'published' | 'advance'>

interface Rotations {
  readonly ca: Rotation<CertificateAuthority>
  readonly jwt: TokenKeys
  readonly wit: TokenKeys | undefined
}

/** The key that signs now and the end of what it signs for `ttl`: never after its own. */
function signingFor<K>(
  rotation: Pick<Rotation<K>, 'signing'>,
  ttl: Seconds,
  now: Seconds,
): { key: K; expires: Seconds } {
  const { key, ends } = rotation.signing
  if (ends <= now) throw new Fault('authority_unavailable', 'the signing key has ended')
  return { key, expires: Math.min(now + ttl, ends) }
}

function issueToken(
  rotation: TokenKeys | undefined,
  ttl: Seconds,
  now: Seconds,
  make: (times: { now: Seconds; expires: Seconds }, key: TokenKey) => string,
): IssuedToken {
  if (!rotation) throw new Fault('authority_unavailable', 'the authority has no key for this kind of token')
  const { key, expires } = signingFor(rotation, ttl, now)
  return { token: make({ now, expires }, key), expires }
}

function issueX509(ask: X509Ask, ca: Rotation<CertificateAuthority>, now: Seconds): IssuedX509 {
  const { key, expires: notAfter } = signingFor(ca, ask.ttl, now)
  const notBefore = now - BACKDATE
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

function caRotation(options: EmbeddedOptions, now: Seconds): Rotation<CertificateAuthority> {
  const { ca, caTtl } = options
  if (ca) return new Rotation({ first: operatorSlot(ca.get(), now), lead: LEAD })
  const make = (published: Seconds) => {
    const ends = published + caTtl
    return { key: makeCa(options, published, ends), published, ends }
  }
  return new Rotation({ first: make(now), lead: leadOf(caTtl), make })
}

function operatorSlot(key: CertificateAuthority, published: Seconds): Slot<CertificateAuthority> {
  return { key, published, ends: key.notAfter }
}

function tokenKeys(options: EmbeddedOptions, kind: 'jwt' | 'wit', now: Seconds): TokenKeys {
  const { sharedKeys } = options
  return sharedKeys ? new SharedKeys(sharedKeys, kind, LEAD) : keyRotation(options, now)
}

function keyRotation({ algorithm, keyTtl }: EmbeddedOptions, now: Seconds): Rotation<TokenKey> {
  const make = (published: Seconds) => ({
    key: makeTokenKey(algorithm),
    published,
    ends: published + keyTtl,
  })
  return new Rotation({ first: make(now), lead: leadOf(keyTtl), make })
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
  if (!options.intermediate) return { root, chain: [], subject, keyId, notBefore, notAfter, signer }
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
    notBefore,
    notAfter,
    signer: certificateSigner(below),
  }
}

function spkiOf(held: HeldKey): Buffer {
  return held.publicKey.export({ format: 'der', type: 'spki' })
}

function certificateSigner(held: HeldKey): CertificateSigner {
  return { alg: held.alg, signDer: (input) => held.signDer(input) }
}

function isSame(one: readonly Buffer[], other: readonly Buffer[]): boolean {
  return one.length === other.length && one.every((root, index) => other[index]?.equals(root))
}

function bundleOf(trustDomain: TrustDomain, { ca, jwt, wit }: Rotations, sequence: bigint): Bundle {
  const keys = (rotation: TokenKeys | undefined) =>
    new Map((rotation?.published ?? []).map(({ key }) => [key.kid, { key: key.key, jwk: key.jwk }]))
  // Successive authorities of an operator often hang below one root.
  const roots = new Map(ca.published.map(({ key }) => [key.root.toString('latin1'), key.root]))
  return {
    trustDomain,
    x509Authorities: [...roots.values()],
    jwtAuthorities: keys(jwt),
    witAuthorities: keys(wit),
    sequence,
    refreshHintSeconds: REFRESH_HINT,
  }
}
