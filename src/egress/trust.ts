/**
 * Whom a TLS connection trusts: the system's roots, a file's, or a trust domain's bundle with the exact SPIFFE ID of
 * the server. OpenSSL verifies the chain in every mode; there is no path on which it does not.
 */
import { X509Certificate } from 'node:crypto'
import { statSync } from 'node:fs'
import { isIP } from 'node:net'
import {
  type ConnectionOptions,
  checkServerIdentity,
  createSecureContext,
  type DetailedPeerCertificate,
  type PeerCertificate,
  type SecureContext,
  type SecureContextOptions,
} from 'node:tls'
import { type Clock, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { certificateBlocks, pemOf } from '../base/pem.ts'
import { readTrusted } from '../base/trusted.ts'
import type { TlsTrust } from '../policy/grant.ts'
import type { Bundle, BundleOf } from '../spiffe/bundle.ts'
import { type SpiffeId, trustDomainOf } from '../spiffe/id.ts'
import { verifyX509Svid } from '../spiffe/x509svid.ts'

/** What a context is made of besides a client's key; the same object until the roots change. */
export type TrustBase = Readonly<Pick<SecureContextOptions, 'ca' | 'minVersion'>>

/** A client that shows a certificate: makes a context with its held key over these roots. */
export interface TlsClient {
  contextWith(base: TrustBase): SecureContext
}

export interface TrustOptions {
  readonly clock: Clock
  /** Finds the bundle of a trust domain. */
  readonly bundleOf: BundleOf
}

interface KnownFile {
  readonly signature: string
  readonly base: TrustBase
}

const SYSTEM: TrustBase = { minVersion: 'TLSv1.2' }
const FILE_LIMIT = 4 * 1024 * 1024
const CHAIN_LIMIT = 8

/** TLS options of outgoing connections. */
export class Trust {
  readonly #clock: Clock
  readonly #bundleOf: BundleOf
  readonly #files = new Map<string, KnownFile>()
  readonly #roots = new WeakMap<readonly string[], TrustBase>()
  readonly #bundles = new WeakMap<Bundle, TrustBase>()
  readonly #contexts = new WeakMap<TrustBase, SecureContext>()

  constructor(options: TrustOptions) {
    this.#clock = options.clock
    this.#bundleOf = options.bundleOf
  }

  /**
   * Options of `tls.connect` for a server at `host` (a name, or an IP literal without brackets). No session is ever
   * resumed with them, since a resumed one is not verified again. Throws upstream_tls when there are no roots.
   */
  optionsFor(host: string, tls: TlsTrust, client?: TlsClient): ConnectionOptions {
    const base = this.#baseOf(tls)
    const name = tls.serverName ?? host
    return {
      host: name,
      // RFC 6066 s.3: an address is no server name.
      servername: isIP(name) === 0 ? name : '',
      secureContext: client ? client.contextWith(base) : this.#contextOf(base),
      rejectUnauthorized: true,
      checkServerIdentity:
        tls.trust === 'spiffe' ? (_name, leaf) => this.#whyNotPeer(leaf, tls.peerId) : checkServerIdentity,
    }
  }

  #baseOf({ trust, peerId }: TlsTrust): TrustBase {
    if (trust === 'system') return SYSTEM
    if (trust === 'spiffe') return this.#bundleBase(peerId)
    return 'file' in trust ? this.#fileBase(trust.file) : this.#rootsBase(trust.roots)
  }

  /** The roots that `tls` trusts now, in PEM, public as they are; undefined for the system's. Throws upstream_tls. */
  rootsOf(tls: TlsTrust): readonly string[] | undefined {
    const { ca } = this.#baseOf(tls)
    return ca as readonly string[] | undefined
  }

  #contextOf(base: TrustBase): SecureContext {
    const known = this.#contexts.get(base)
    if (known) return known
    const context = createSecureContext(base)
    this.#contexts.set(base, context)
    return context
  }

  #bundleBase(peerId: SpiffeId | undefined): TrustBase {
    if (peerId === undefined) throw new Fault('upstream_tls', 'trust is spiffe, but there is no peer_id')
    const bundle = this.#bundleOf(trustDomainOf(peerId))
    if (!bundle || bundle.x509Authorities.length === 0)
      throw new Fault('upstream_tls', `there is no bundle for the trust domain of ${peerId}`)
    const known = this.#bundles.get(bundle)
    if (known) return known
    const base = {
      ...SYSTEM,
      ca: bundle.x509Authorities.map((der) => pemOf('CERTIFICATE', der).toString('latin1')),
    }
    this.#bundles.set(bundle, base)
    return base
  }

  #rootsBase(roots: readonly string[]): TrustBase {
    const known = this.#roots.get(roots)
    if (known) return known
    const base = { ...SYSTEM, ca: [...roots] }
    this.#roots.set(roots, base)
    return base
  }

  /** Read again when it has changed; the last good roots stay while the file is not. */
  #fileBase(file: string): TrustBase {
    const known = this.#files.get(file)
    const signature = signatureOf(file)
    if (known?.signature === signature) return known.base
    try {
      const base = { ...SYSTEM, ca: readRoots(file) }
      this.#files.set(file, { signature, base })
      return base
    } catch (error) {
      if (known) return known.base
      throw new Fault('upstream_tls', Fault.from(error, 'upstream_tls').message, { cause: error })
    }
  }

  /** X509-SVID.md s.5 on the chain as sent; the name that was dialled does not count. */
  #whyNotPeer(leaf: PeerCertificate, peerId: SpiffeId | undefined): Error | undefined {
    try {
      const { spiffeId } = verifyX509Svid(chainOf(leaf), this.#bundleOf, nowSeconds(this.#clock))
      if (spiffeId === peerId) return undefined
      return new Fault('upstream_tls', `the server is ${spiffeId}, wanted ${peerId}`)
    } catch (error) {
      return new Fault('upstream_tls', Fault.from(error, 'upstream_tls').message, { cause: error })
    }
  }
}

function chainOf(leaf: PeerCertificate): readonly Buffer[] {
  const chain: Buffer[] = []
  let next: Partial<DetailedPeerCertificate> | undefined = leaf
  while (next?.raw && chain.length < CHAIN_LIMIT && !chain.some((raw) => next?.raw?.equals(raw))) {
    chain.push(next.raw)
    next = next.issuerCertificate
  }
  return chain
}

function readRoots(file: string): string[] {
  const pems = certificateBlocks(readTrusted(file, { maxBytes: FILE_LIMIT }).toString('latin1'))
  try {
    for (const pem of pems) new X509Certificate(pem)
  } catch (error) {
    throw new Fault('upstream_tls', `${file}: a certificate in it cannot be read`, { cause: error })
  }
  if (pems.length === 0) throw new Fault('upstream_tls', `${file}: there is no certificate in PEM`)
  return [...pems]
}

function signatureOf(file: string): string {
  const stats = statSync(file, { throwIfNoEntry: false, bigint: true })
  return stats ? `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}` : 'none'
}
