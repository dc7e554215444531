/** X.509-SVIDs and bundles that stay fresh (SPIFFE_Workload_API.md s.5). */
import type { KeyObject } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { type Clock, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Agent, type AgentOptions, openAgent } from './agent.ts'
import { type OpenOptions, Source } from './source.ts'
import { awaitedClock } from './timer.ts'
import { parseX509Context, trustDomainOf, type X509Context, type X509Svid } from './x509-svid.ts'

export interface X509SourceOptions extends AgentOptions, OpenOptions {
  /** Which of this process's identities; its first one when absent. */
  readonly spiffeId?: string | undefined
}

/** Certificate, key and roots as PEM: what node:tls, node:https and gRPC take. */
export interface X509Pem {
  /** Leaf first, then intermediates. */
  readonly cert: string
  readonly key: string
  /** The roots of the SVID's own trust domain. */
  readonly ca: string
}

/** Keeps the newest X.509-SVID; its stream holds the process open until `close()`. */
export interface X509Source extends AsyncDisposable {
  /** The newest SVID. Throws svid_expired, svid_invalid (no SVID of the wanted id), no_identity and what else the agent said. */
  svid(): X509Svid
  /** All of this process's identities, the default one first. */
  svids(): readonly X509Svid[]
  /** The roots of a trust domain, own or federated; throws bundle_missing. */
  bundle(trustDomain: string): X509Svid['bundle']
  /** The newest SVID as PEM. Throws as `svid`. */
  pem(): X509Pem
  /**
   * The newest SVID as a TLS context. It verifies chains, and it does not know whom you mean: check the peer's SPIFFE
   * ID (its only URI SAN) yourself. Throws as `svid`.
   *
   * @example
   * const server = tls.createServer({ SNICallback: (_name, done) => done(null, source.secureContext()) })
   */
  secureContext(): SecureContext
  /**
   * Calls `listener` after each change, and when the identity is taken away; the returned function ends it.
   *
   * @example
   * source.onUpdated(() => server.setSecureContext(source.pem()))
   */
  onUpdated(listener: () => void): () => void
  /** Why no newer SVID comes; undefined while all is well. */
  readonly problem: Fault | undefined
  /** Ends the stream; may be called again. */
  close(): void
}

/**
 * Opens a source; resolves with the first SVID, however long that takes. Throws what the agent refuses for good, and
 * what it last said when `signal` aborts first.
 *
 * @example
 * await using source = await openX509Source({ signal: AbortSignal.timeout(30_000) })
 * const server = https.createServer(source.pem(), handler)
 */
export async function openX509Source(options: X509SourceOptions = {}): Promise<X509Source> {
  return await x509Source(openAgent(options), options, awaitedClock)
}

/** The source over an agent that is open already. */
export async function x509Source(
  agent: Agent,
  { signal, spiffeId }: X509SourceOptions,
  clock: Clock,
): Promise<X509Source> {
  const source = new Source<X509Context>({
    agent,
    clock,
    method: 'SpiffeWorkloadAPI/FetchX509SVID',
    parse: parseX509Context,
  })
  await source.ready({ signal })
  const svid = () => unexpired(chosen(source.get(), spiffeId), clock)
  return {
    svid,
    svids: () => source.get().svids,
    bundle: (trustDomain) => {
      const roots = source.get().bundles.get(trustDomainOf(trustDomain))
      if (!roots) throw new Fault('bundle_missing')
      return roots
    },
    pem: () => pemOf(svid()),
    secureContext: () => createSecureContext(pemOf(svid())),
    onUpdated: (listener) => source.onUpdated(listener),
    get problem() {
      return source.problem
    },
    close: () => source.close(),
    [Symbol.asyncDispose]: async () => source.close(),
  }
}

function chosen({ svids }: X509Context, spiffeId: string | undefined): X509Svid {
  const svid = spiffeId === undefined ? svids[0] : svids.find((each) => each.spiffeId === spiffeId)
  if (!svid)
    throw new Fault('no_identity', 'this process is not entitled to the SPIFFE ID that was asked for')
  return svid
}

/** An agent that cannot be reached must not make old certificates immortal. */
function unexpired(svid: X509Svid, clock: Clock): X509Svid {
  if (svid.expiresAt <= nowSeconds(clock)) throw new Fault('svid_expired')
  return svid
}

function pemOf({ certificates, privateKey, bundle }: X509Svid): X509Pem {
  return {
    cert: certificates.map(String).join(''),
    key: keyPem(privateKey),
    ca: bundle.map(String).join(''),
  }
}

function keyPem(key: KeyObject): string {
  return key.export({ format: 'pem', type: 'pkcs8' }).toString()
}
