/** SVIDs and bundles in the form that Envoy's TLS takes: `tls_certificate` and `validation_context` (SDS v3). */
import { createHash } from 'node:crypto'
import { pemOf } from '../base/pem.ts'
import type { Entry } from '../policy/entry.ts'
import { encoderOf, type Message } from '../serve/messages.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import type { X509Svid } from './svids.ts'

/** How peers are verified: each by the bundle of its own trust domain, or all by one pool. */
export type Validator = 'spiffe' | 'trusted_ca'

/** One secret under the name that it was asked for. */
export interface Secret {
  readonly name: string
  /** Says what is in it and gives nothing of it away: two secrets of one version are equal. */
  readonly version: string
  /** The entry whose SVID it is; undefined for bundles. */
  readonly entry: Entry | undefined
  /** The encoded `Secret`, made anew; whoever asks overwrites it. */
  encode(): Buffer
}

const PACKAGE = 'envoy.service.secret.v3'
const SPIFFE_VALIDATOR =
  'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig'
const VERSION_LENGTH = 22

const encodeSecret = encoderOf(`${PACKAGE}.Secret`)
const encodeValidator = encoderOf(`${PACKAGE}.SPIFFECertValidatorConfig`)

/** The certificate and key of `svid`. */
export function svidSecret(name: string, entry: Entry, svid: X509Svid): Secret {
  return { name, entry, version: versionOfSvid(svid), encode: () => encodeSvid(name, svid) }
}

function encodeSvid(name: string, { certificates, key }: X509Svid): Buffer {
  const pem = pemOf('PRIVATE KEY', key)
  const certificate_chain = { inline_bytes: pemsOf(certificates) }
  try {
    return encodeSecret({ name, tls_certificate: { certificate_chain, private_key: { inline_bytes: pem } } })
  } finally {
    pem.fill(0)
  }
}

/** What verifies peers of these trust domains; undefined without a CA: Envoy takes an empty one and trusts nobody. */
export function bundleSecret(
  name: string,
  bundles: readonly Bundle[],
  validator: Validator,
): Secret | undefined {
  // In one pool each trust domain could sign for every other: it holds the first alone.
  const chosen = validator === 'spiffe' ? [...bundles].sort(byTrustDomain) : bundles.slice(0, 1)
  const usable = chosen.filter(({ x509Authorities }) => x509Authorities.length > 0)
  if (usable.length === 0) return undefined
  const version = digest([validator, ...usable.map(versionOfBundle)])
  const context = () => (validator === 'spiffe' ? spiffeContext(usable) : poolContext(usable))
  return {
    name,
    version,
    entry: undefined,
    encode: () => encodeSecret({ name, validation_context: context() }),
  }
}

function spiffeContext(bundles: readonly Bundle[]): Message {
  const trust_domains = bundles.map(({ trustDomain, x509Authorities }) => ({
    name: trustDomain,
    trust_bundle: { inline_bytes: pemsOf(x509Authorities) },
  }))
  const typed_config = { type_url: SPIFFE_VALIDATOR, value: encodeValidator({ trust_domains }) }
  return { custom_validator_config: { name: 'envoy.tls.cert_validator.spiffe', typed_config } }
}

function poolContext(bundles: readonly Bundle[]): Message {
  const all = bundles.flatMap(({ x509Authorities }) => x509Authorities)
  return { trusted_ca: { inline_bytes: pemsOf(all) } }
}

function pemsOf(certificates: readonly Buffer[]): Buffer {
  return Buffer.concat(certificates.map((der) => pemOf('CERTIFICATE', der)))
}

function byTrustDomain(a: Bundle, b: Bundle): number {
  return a.trustDomain < b.trustDomain ? -1 : 1
}

const versions = new WeakMap<X509Svid | Bundle, string>()

function versionOfSvid(svid: X509Svid): string {
  return remembered(svid, () => digest(svid.certificates))
}

function versionOfBundle(bundle: Bundle): string {
  return remembered(bundle, () => digest([bundle.trustDomain, ...bundle.x509Authorities]))
}

function remembered(value: X509Svid | Bundle, make: () => string): string {
  const known = versions.get(value)
  if (known !== undefined) return known
  const version = make()
  versions.set(value, version)
  return version
}

function digest(parts: readonly (string | Buffer)[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part.length}:`).update(part)
  return hash.digest('base64url').slice(0, VERSION_LENGTH)
}

/** One version for several secrets: what a client hands back says which state it has. */
export function versionOfAll(secrets: readonly Secret[]): string {
  return digest(secrets.flatMap(({ name, version }) => [name, version]))
}
