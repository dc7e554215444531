/** An X.509-SVID that the agent shows as a client's certificate (RFC 8705 s.2.1): its key is held, it is never delivered. */
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import type { Authority } from '../issue/authority.ts'
import { makeTlsContext } from '../keys/tls.ts'
import type { Entry } from '../policy/entry.ts'
import type { TlsClient, TrustBase } from './trust.ts'

export interface HeldCertificateOptions {
  readonly authority: Pick<Authority, 'issueX509'>
  readonly clock: Clock
}

/** Each set of roots has a certificate of its own, renewed at half its life. */
export class HeldCertificate implements TlsClient {
  readonly #entry: Entry
  readonly #options: HeldCertificateOptions
  #made = new WeakMap<
    TrustBase,
    { readonly context: ReturnType<typeof makeTlsContext>; readonly renewAt: Seconds }
  >()

  constructor(entry: Entry, options: HeldCertificateOptions) {
    this.#entry = entry
    this.#options = options
  }

  contextWith(base: TrustBase): ReturnType<typeof makeTlsContext> {
    const now = nowSeconds(this.#options.clock)
    const known = this.#made.get(base)
    if (known && now < known.renewAt) return known.context
    const { spiffeId, x509Ttl: ttl } = this.#entry
    let ends = now
    const context = makeTlsContext((spki) => {
      const { chain, notAfter } = this.#options.authority.issueX509({ spiffeId, spki, ttl, dnsNames: [] })
      ends = notAfter
      return chain
    }, base)
    this.#made.set(base, { context, renewAt: now + Math.floor((ends - now) / 2) })
    return context
  }
}
