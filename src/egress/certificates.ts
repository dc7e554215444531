/**
 * X.509-SVIDs that the agent shows over connections and delivers to nobody: one for each workload instance and purpose,
 * renewed at half its life. What a certificate binds ends with it (RFC 8705 s.3): the old one stays with the
 * connections and tokens that it has, new ones get the new one.
 */
import { createHash, createPublicKey } from 'node:crypto'
import type { Instance } from '../attest/workload.ts'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Authority } from '../issue/authority.ts'
import { makeTlsKey, type TlsKey } from '../keys/tls.ts'
import type { Entry } from '../policy/entry.ts'
import type { Jkt, Signer } from '../proof/signer.ts'
import { publicJwkOf, thumbprint } from '../spiffe/jwk.ts'
import type { TlsClient, TrustBase } from './trust.ts'

/** One certificate over one key. */
export interface Certificate extends TlsClient {
  /** base64url SHA-256 of the certificate in DER: `x5t#S256` (RFC 8705 s.3.1). */
  readonly x5t: string
  /** Its key as tokens and records name it; signs nothing outside TLS: `sign` throws key_purpose. */
  readonly signer: Signer
  /** When it ends, in seconds since 1970. */
  readonly expires: Seconds
  /** Whether none has taken its place, nor its lease ended. */
  readonly isCurrent: boolean
}

/** Whose certificate and what for: `client:ISSUER`, `target:NAME`. */
export interface CertificateAsk {
  readonly entry: Entry
  readonly instance: Instance
  readonly purpose: string
}

export interface CertificatesOptions {
  readonly authority: Pick<Authority, 'issueX509'>
  readonly clock: Clock
}

interface Held {
  readonly certificate: Certificate
  readonly renewAt: Seconds
}

/** Makes and keeps certificates. */
export class Certificates {
  readonly #options: CertificatesOptions
  readonly #held = new Map<string, Held>()

  constructor(options: CertificatesOptions) {
    this.#options = options
  }

  /** The newest one; the last good one while none can be issued. Throws what the authority throws. */
  current(ask: CertificateAsk): Certificate {
    const { entry, instance, purpose } = ask
    const key = JSON.stringify([instance.key, entry.spiffeId, entry.x509Ttl, purpose])
    const known = this.#held.get(key)
    const now = nowSeconds(this.#options.clock)
    if (known && now < known.renewAt) return known.certificate
    try {
      return this.#renew(key, ask, now)
    } catch (caught) {
      if (known && now < known.certificate.expires) return known.certificate
      throw caught
    }
  }

  /** Forgets those over the key `jkt`, which nobody trusts any more; how many. */
  drop(jkt: string): number {
    const over = [...this.#held].filter(([, { certificate }]) => certificate.signer.jkt === jkt)
    for (const [key] of over) this.#held.delete(key)
    return over.length
  }

  #renew(key: string, { entry, instance }: CertificateAsk, now: Seconds): Certificate {
    const { spiffeId, x509Ttl: ttl } = entry
    const tlsKey = makeTlsKey()
    const { chain, notAfter } = this.#options.authority.issueX509({
      spiffeId,
      spki: tlsKey.spki,
      ttl,
      dnsNames: [],
    })
    const isCurrent = () => this.#held.get(key)?.certificate === certificate
    const certificate = certificateOf(tlsKey, { chain, expires: notAfter, isCurrent })
    // After the lease there is one request left: to give its token back.
    if (instance.signal.aborted) return certificate
    const isNew = !this.#held.has(key)
    this.#held.set(key, { certificate, renewAt: now + Math.floor((notAfter - now) / 2) })
    if (isNew) instance.signal.addEventListener('abort', () => this.#held.delete(key), { once: true })
    return certificate
  }
}

interface Issued {
  readonly chain: readonly Buffer[]
  readonly expires: Seconds
  readonly isCurrent: () => boolean
}

function certificateOf(key: TlsKey, { chain, expires, isCurrent }: Issued): Certificate {
  const contexts = new WeakMap<TrustBase, ReturnType<TlsKey['contextWith']>>()
  const publicJwk = publicJwkOf(createPublicKey({ key: key.spki, format: 'der', type: 'spki' }))
  return {
    x5t: createHash('sha256')
      .update(chain[0] ?? '')
      .digest('base64url'),
    signer: { alg: 'ES256', publicJwk, jkt: thumbprint(publicJwk) as Jkt, sign: refuse },
    expires,
    get isCurrent() {
      return isCurrent()
    },
    contextWith: (base) => {
      const context = contexts.get(base) ?? key.contextWith(chain, base)
      contexts.set(base, context)
      return context
    },
  }
}

function refuse(): never {
  throw new Fault('key_purpose', 'the key of a certificate signs no proofs')
}
