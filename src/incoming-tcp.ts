/**
 * The verifier over TCP: mutual TLS, listed SPIFFE IDs and nobody else; what they may ask about is what routes say, as on
 * the unix socket. Its own certificate is an SVID that is delivered to nobody, or of files.
 */
import { createSecureContext, type SecureContext } from 'node:tls'
import { type Clock, nowSeconds, type Seconds } from './base/clock.ts'
import { Fault } from './base/fault.ts'
import { readTrusted } from './base/trusted.ts'
import { watchFiles } from './base/watch.ts'
import type { Core, CoreOptions } from './core.ts'
import type { Authority } from './issue/authority.ts'
import { makeTlsKey } from './keys/tls.ts'
import type { Entry } from './policy/entry.ts'
import { type Caller, remoteCaller } from './serve/caller.ts'
import {
  type Identified,
  openTlsDoor,
  SERVER_BASE,
  type TlsDoor,
  type TlsDoorOptions,
} from './serve/tls-door.ts'
import type { BundleOf } from './spiffe/bundle.ts'
import { type SpiffeId, trustDomainOf } from './spiffe/id.ts'
import { verifyX509Svid } from './spiffe/x509svid.ts'

export type TcpParts = Pick<TlsDoorOptions, 'grpc' | 'http' | 'limits' | 'onConnection'> & {
  readonly bundleOf: BundleOf
}

const MILLIS = 1000
const HANDSHAKES = 256
const PEM_LIMIT = 256 * 1024

/** Undefined where `verifier.listen` is off. Throws config_invalid, policy_writable. */
export async function openVerifierTcp(
  options: CoreOptions,
  core: Core,
  parts: TcpParts,
): Promise<TlsDoor | undefined> {
  const { clock, config } = options
  const { clients, listen } = config.verifier
  if (!listen) return undefined
  const shown = shownBy(options, core)
  const judge = { clock, core, clients: clients as readonly SpiffeId[], bundleOf: parts.bundleOf }
  try {
    const door = await openTlsDoor({
      ...listen,
      ...parts,
      name: 'verifier.listen',
      clock,
      context: shown.context,
      identify: (chain) => identify(judge, chain),
      handshakes: HANDSHAKES,
      patience: config.limits.headerTimeout * MILLIS,
    })
    const stop = () => {
      shown.stop()
      door.stop()
    }
    return { port: door.port, close: () => door.close(), stop }
  } catch (error) {
    shown.stop()
    throw error
  }
}

interface Judge {
  readonly clock: Clock
  readonly core: Pick<Core, 'revocations'>
  readonly clients: readonly SpiffeId[]
  readonly bundleOf: BundleOf
}

/** Judged at the handshake; whether it still holds is asked anew with each request. */
function identify({ bundleOf, clients, clock, core }: Judge, chain: readonly Buffer[]): Identified {
  if (chain.length === 0) throw new Fault('no_identity', 'the connection shows no certificate')
  const { notAfter, spiffeId } = verifyX509Svid(chain, bundleOf, nowSeconds(clock))
  const at = clients.indexOf(spiffeId)
  if (at < 0) throw new Fault('verifier_foreign', 'the SPIFFE ID is not one of verifier.clients')
  const trustDomain = trustDomainOf(spiffeId)
  let judgedBy = bundleOf(trustDomain)
  const check = () => {
    core.revocations.check([['spiffe_id', spiffeId]])
    const now = nowSeconds(clock)
    if (now >= notAfter) throw new Fault('svid_expired', 'the certificate of the connection has expired')
    const bundle = bundleOf(trustDomain)
    if (bundle !== judgedBy) verifyX509Svid(chain, bundleOf, now)
    judgedBy = bundle
    return spiffeId
  }
  check()
  const caller: Caller = remoteCaller(at, check)
  return { caller, endsIn: (notAfter - nowSeconds(clock)) * MILLIS }
}

interface Shown {
  readonly context: () => SecureContext
  stop(): void
}

function shownBy(options: CoreOptions, core: Core): Shown {
  const { authority, clock, config } = options
  const { certificateFile, entry: name, keyFile } = config.verifier
  if (certificateFile !== undefined && keyFile !== undefined)
    return fromFiles(options, { certificateFile, keyFile })
  const entryNow = () => core.book.get().entries.find((entry) => entry.name === name)
  if (!entryNow())
    throw new Fault('config_invalid', `verifier.entry: no identity policy file has the entry ${name}`)
  const newest = new OwnSvid(authority, clock)
  return { context: () => newest.context(entryNow()), stop: () => {} }
}

/** One certificate at a time, renewed at half its life by the handshake that comes then; open connections keep theirs. */
class OwnSvid {
  readonly #authority: Pick<Authority, 'issueX509'>
  readonly #clock: Clock
  #made:
    | {
        readonly context: SecureContext
        readonly renewAt: Seconds
        readonly expires: Seconds
        readonly of: Entry
      }
    | undefined

  constructor(authority: Pick<Authority, 'issueX509'>, clock: Clock) {
    this.#authority = authority
    this.#clock = clock
  }

  /** The last good one while none can be issued. Throws no_identity, and what the authority throws. */
  context(entry: Entry | undefined): SecureContext {
    if (!entry) throw new Fault('no_identity', 'policy has the entry of verifier.entry no more')
    const made = this.#made?.of.spiffeId === entry.spiffeId ? this.#made : undefined
    const now = nowSeconds(this.#clock)
    if (made && now < made.renewAt && sameNames(made.of, entry)) return made.context
    try {
      return this.#make(entry, now)
    } catch (error) {
      if (made && now < made.expires) return made.context
      throw error
    }
  }

  #make(entry: Entry, now: Seconds): SecureContext {
    const { dnsNames, spiffeId, x509Ttl: ttl } = entry
    const key = makeTlsKey()
    const { chain, notAfter } = this.#authority.issueX509({ spiffeId, spki: key.spki, ttl, dnsNames })
    const context = key.contextWith(chain, SERVER_BASE)
    this.#made = { context, of: entry, expires: notAfter, renewAt: now + Math.floor((notAfter - now) / 2) }
    return context
  }
}

function sameNames(one: Entry, other: Entry): boolean {
  return one === other || one.dnsNames.join() === other.dnsNames.join()
}

/** Read again when they change; a pair that does not fit leaves the last good one. */
function fromFiles(
  { clock, log }: CoreOptions,
  { certificateFile, keyFile }: { readonly certificateFile: string; readonly keyFile: string },
): Shown {
  const read = () => {
    const cert = readTrusted(certificateFile, { maxBytes: PEM_LIMIT })
    const key = readTrusted(keyFile, { maxBytes: PEM_LIMIT, secret: true })
    try {
      return createSecureContext({ ...SERVER_BASE, cert, key })
    } catch (cause) {
      throw new Fault('config_invalid', 'verifier: certificate_file and key_file are no pair', { cause })
    } finally {
      key.fill(0)
    }
  }
  let context = read()
  const watch = watchFiles([certificateFile, keyFile], clock, () => {
    try {
      context = read()
    } catch (error) {
      log.warn(`the last good certificate of verifier.listen stays: ${Fault.from(error).message}`)
    }
  })
  return { context: () => context, stop: () => watch.close() }
}
