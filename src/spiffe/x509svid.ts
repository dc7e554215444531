/** X509-SVIDs (X509-SVID.md s.2 to 5): the profile of a leaf, and path validation to its trust domain's bundle. */
import type { KeyObject } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Bundle, BundleOf } from './bundle.ts'
import { type Certificate, parseCertificate } from './certificate.ts'
import { isSignedBy, publicKeyOf } from './certificate-key.ts'
import { CLIENT_AUTH, SERVER_AUTH } from './extensions.ts'
import { parseWorkloadId, type SpiffeId, type TrustDomain, trustDomainOf } from './id.ts'

/** An X509-SVID that keeps the profile; nobody has verified it. */
export interface X509Svid {
  readonly spiffeId: SpiffeId
  readonly leaf: Certificate
  /** From the leaf's issuer towards the root. */
  readonly intermediates: readonly Certificate[]
}

/** A verified X509-SVID. Who sent it must still prove that it holds the key, as TLS does. */
export interface X509SvidFacts {
  readonly spiffeId: SpiffeId
  readonly publicKey: KeyObject
  readonly notBefore: Seconds
  /** The last second in which every certificate of the path is valid. */
  readonly notAfter: Seconds
}

const CHAIN_LIMIT = 8
/** Authorities of one name: rotation leaves two, a hostile bundle thousands. */
const CANDIDATES_LIMIT = 8

/** Reads a chain, leaf first; throws certificate_malformed, svid_invalid, spiffe_id_invalid. */
export function parseX509Svid(chain: readonly Uint8Array[]): X509Svid {
  if (chain.length > CHAIN_LIMIT) throw invalid(`its chain is over ${CHAIN_LIMIT} certificates`)
  const [leaf, ...intermediates] = chain.map(parseCertificate)
  if (!leaf) throw invalid('its chain is empty')
  return { spiffeId: checkLeaf(leaf), leaf, intermediates }
}

/** X509-SVID.md s.5.2, and the usages that s.4.3 and 4.4 ask of a leaf. */
function checkLeaf({ extensions }: Certificate): SpiffeId {
  const { uris, basicConstraints, keyUsage, extKeyUsage, unprocessed } = extensions
  const [uri, ...others] = uris
  if (unprocessed.length > 0)
    throw invalid('its leaf has a constraint or critical extension that is not processed')
  if (uri === undefined || others.length > 0) throw invalid(`its leaf has ${uris.length} URI names, not one`)
  if (basicConstraints?.isCa) throw invalid('its leaf is a signing certificate')
  if (keyUsage?.keyCertSign || keyUsage?.crlSign)
    throw invalid('the key of its leaf may sign certificates or CRLs')
  if (!keyUsage?.critical || !keyUsage.digitalSignature)
    throw invalid('its leaf has no critical keyUsage with digitalSignature')
  if (extKeyUsage && !(extKeyUsage.has(SERVER_AUTH) && extKeyUsage.has(CLIENT_AUTH)))
    throw invalid('the extKeyUsage of its leaf lacks serverAuth or clientAuth')
  return parseWorkloadId(uri)
}

/**
 * Verifies a chain, leaf first, each certificate signed by the next, to the bundle of the leaf's own trust domain.
 * Throws certificate_malformed, svid_invalid, svid_expired, bundle_missing, spiffe_id_invalid.
 */
export function verifyX509Svid(
  chain: readonly Uint8Array[],
  bundleOf: BundleOf,
  now: Seconds,
): X509SvidFacts {
  const svid = parseX509Svid(chain)
  const { spiffeId, leaf } = svid
  const trustDomain = trustDomainOf(spiffeId)
  const bundle = bundleOf(trustDomain)
  if (!bundle) throw new Fault('bundle_missing', `no bundle for the trust domain ${trustDomain}`)
  const publicKey = publicKeyOf(leaf)
  if (!publicKey) throw invalid('the key of its leaf is of a kind or size that SVIDs do not have')
  checkInForce(leaf, now)
  const notAfter = verifyPath(svid, authoritiesOf(bundle), trustDomain, now)
  return { spiffeId, publicKey, notBefore: leaf.notBefore, notAfter }
}

/** RFC 5280 s.6.1 from the leaf up; where the path ends. At most 8 steps of at most 9 signatures. */
function verifyPath(
  { leaf, intermediates }: X509Svid,
  authorities: readonly Authority[],
  trustDomain: TrustDomain,
  now: Seconds,
): Seconds {
  let current = leaf
  let below = 0
  let notAfter = leaf.notAfter
  for (const next of [...intermediates, undefined]) {
    const root = rootOf(current, authorities, below, now)
    if (root) return Math.min(notAfter, root.certificate.notAfter)
    if (!next) break
    checkIssuer(next, current, below, now)
    // RFC 5280 s.6.1.4 (l): self-issued certificates do not count.
    if (!next.issuer.equals(next.subject)) below += 1
    notAfter = Math.min(notAfter, next.notAfter)
    current = next
  }
  throw invalid(`no authority in force of the bundle of ${trustDomain} signed it`)
}

/** The authority of the bundle that signed `child`. */
function rootOf(
  child: Certificate,
  authorities: readonly Authority[],
  below: number,
  now: Seconds,
): Authority | undefined {
  return authorities
    .filter(({ certificate }) => isNamed(child, certificate))
    .slice(0, CANDIDATES_LIMIT)
    .filter(({ certificate }) => isInForce(certificate, now) && !whyNotIssuer(certificate, below))
    .find(({ key }) => isSignedBy(child, key))
}

/** Whether the names chain; key identifiers tell apart authorities of one name. */
function isNamed(child: Certificate, issuer: Certificate): boolean {
  const { authorityKeyId } = child.extensions
  const { subjectKeyId } = issuer.extensions
  const isSameKey = !authorityKeyId || !subjectKeyId || authorityKeyId.equals(subjectKeyId)
  return isSameKey && child.issuer.equals(issuer.subject)
}

function checkIssuer(issuer: Certificate, child: Certificate, below: number, now: Seconds): void {
  if (!child.issuer.equals(issuer.subject)) throw invalid('the names in its chain do not follow each other')
  checkInForce(issuer, now)
  const why = whyNotIssuer(issuer, below)
  if (why) throw invalid(`a signing certificate in its chain ${why}`)
  const key = publicKeyOf(issuer)
  if (!key || !isSignedBy(child, key)) throw invalid('a signature in its chain is wrong')
}

/** RFC 5280 s.6.1.4 (k) to (o); undefined when `issuer` may sign with `below` intermediates under it. */
function whyNotIssuer({ extensions }: Certificate, below: number): string | undefined {
  const { basicConstraints, keyUsage, unprocessed } = extensions
  if (unprocessed.length > 0) return 'has a constraint or critical extension that is not processed'
  if (!basicConstraints?.isCa) return 'is not a CA'
  if (keyUsage && !keyUsage.keyCertSign) return 'may not sign certificates'
  const { pathLength } = basicConstraints
  return pathLength !== undefined && below > pathLength ? 'allows no path of this length' : undefined
}

function checkInForce({ notBefore, notAfter }: Certificate, now: Seconds): void {
  if (now < notBefore) throw invalid(`its chain is not valid for another ${notBefore - now} s`)
  if (now > notAfter) throw new Fault('svid_expired', `the SVID expired ${now - notAfter} s ago`)
}

function isInForce({ notBefore, notAfter }: Certificate, now: Seconds): boolean {
  return now >= notBefore && now <= notAfter
}

interface Authority {
  readonly certificate: Certificate
  readonly key: KeyObject
}

/** A bundle's buffers live as long as it does; reading a root costs more than a signature. */
const known = new WeakMap<Buffer, Authority | undefined>()

function authoritiesOf(bundle: Bundle): readonly Authority[] {
  return bundle.x509Authorities.flatMap((der) => {
    if (!known.has(der)) known.set(der, readAuthority(der))
    return known.get(der) ?? []
  })
}

/** Undefined for what cannot sign SVIDs: a bundle's other authorities still count. */
function readAuthority(der: Buffer): Authority | undefined {
  try {
    const certificate = parseCertificate(der)
    const key = publicKeyOf(certificate)
    return key && { certificate, key }
  } catch {
    return undefined
  }
}

function invalid(what: string): Fault {
  return new Fault('svid_invalid', `the SVID does not verify: ${what}`)
}
