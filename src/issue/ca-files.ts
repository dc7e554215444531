/** A CA of the operator's, from files or a mounted Secret: read, checked, never written back. */
import { X509Certificate } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { certificateBlocks } from '../base/pem.ts'
import { readTrusted } from '../base/trusted.ts'
import { readKeyFile } from '../keys/key-file.ts'
import { generateKey } from '../keys/signer.ts'
import { type Certificate, parseCertificate } from '../spiffe/certificate.ts'
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { verifyX509Svid } from '../spiffe/x509svid.ts'
import { makeCertificate } from './certificate.ts'
import type { CertificateAuthority } from './embedded.ts'

export interface CaFiles {
  readonly certificateFile: string
  readonly keyFile: string
  /** From the CA up to its root, when the CA is not the root itself. */
  readonly chainFile: string | undefined
}

const FILE_LIMIT = 256 * 1024
const PATH_LIMIT = 4
const TRIAL: Seconds = 60

/** The CA in `files`; throws config_invalid or policy_writable when it cannot sign SVIDs. */
export function loadCa({ certificateFile, keyFile, chainFile }: CaFiles): CertificateAuthority {
  const given = [...certificatesIn(certificateFile), ...(chainFile ? certificatesIn(chainFile) : [])]
  // Secrets of cert-manager have the root in ca.crt, and may have it in tls.crt too.
  const path = given.filter(({ der }, index) => !given[index - 1]?.der.equals(der))
  const [own] = path
  const root = path.at(-1)
  if (!own || !root) throw refused(certificateFile, 'there is no certificate in it')
  if (given.length > PATH_LIMIT) throw refused(certificateFile, `over ${PATH_LIMIT} certificates to the root`)
  for (const [index, certificate] of path.entries())
    checkLink(certificateFile, certificate, path[index + 1] ?? certificate)
  const held = readKeyFile(keyFile)
  if (!new X509Certificate(own.der).publicKey.equals(held.publicKey)) {
    throw refused(keyFile, 'it is not the key of the certificate')
  }
  const { notBefore, notAfter } = path.reduce((first, each) =>
    each.notAfter < first.notAfter ? each : first,
  )
  const keyId = own.extensions.subjectKeyId
  if (!keyId) throw refused(certificateFile, 'it has no subject key identifier')
  return {
    root: root.der,
    chain: path.slice(0, -1).map(({ der }) => der),
    subject: own.subject,
    keyId,
    notBefore,
    notAfter,
    signer: { alg: held.alg, signDer: (input) => held.signDer(input) },
  }
}

/**
 * Signs a leaf and verifies it as any verifier would: a CA that has ended, constrains names or allows no leaf below it
 * is found out now, not by the first caller. Throws config_invalid.
 */
export function tryCa(ca: CertificateAuthority, trustDomain: TrustDomain, now: Seconds): void {
  const { publicKey } = generateKey('ES256')
  const leaf = makeCertificate(
    {
      subject: 'trial',
      spki: publicKey.export({ format: 'der', type: 'spki' }),
      issuer: ca.subject,
      issuerKeyId: ca.keyId,
      notBefore: now,
      notAfter: Math.min(now + TRIAL, ca.notAfter),
      spiffeId: `${idOfTrustDomain(trustDomain)}/trial`,
      dnsNames: [],
      pathLength: undefined,
    },
    ca.signer,
  )
  const none = { jwtAuthorities: new Map(), witAuthorities: new Map(), sequence: 0n, refreshHintSeconds: 0 }
  const bundle = { trustDomain, x509Authorities: [ca.root], ...none }
  try {
    verifyX509Svid([leaf, ...ca.chain], () => bundle, now)
  } catch (error) {
    const { message } = Fault.from(error)
    throw new Fault('config_invalid', `authority.ca: what it signs does not verify: ${message}`)
  }
}

function certificatesIn(file: string): readonly Certificate[] {
  const text = readTrusted(file, { maxBytes: FILE_LIMIT }).toString('latin1')
  const blocks = certificateBlocks(text)
  try {
    return blocks.map((pem) => parseCertificate(new X509Certificate(pem).raw))
  } catch (error) {
    throw refused(file, error instanceof Fault ? error.message : 'it is not a PEM certificate')
  }
}

/** Each certificate must be a CA, signed by the next; the last one by itself. */
function checkLink(file: string, certificate: Certificate, issuer: Certificate): void {
  const { basicConstraints, keyUsage } = certificate.extensions
  if (!basicConstraints?.isCa || !keyUsage?.keyCertSign)
    throw refused(file, 'a certificate on the way to the root is no CA')
  const child = new X509Certificate(certificate.der)
  const parent = new X509Certificate(issuer.der)
  if (!child.checkIssued(parent) || !child.verify(parent.publicKey)) {
    throw refused(
      file,
      'no way to a self-signed root: authority.ca.chain_file holds the certificates between',
    )
  }
}

function refused(file: string, what: string): Fault {
  return new Fault('config_invalid', `authority.ca: ${file} cannot be used: ${what}`)
}
