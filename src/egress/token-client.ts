/** The token client put together: what the composition root needs to know of it. */
import type { Clock, Millis, Seconds } from '../base/clock.ts'
import type { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { Authority } from '../issue/authority.ts'
import type { Vault } from '../keys/vault.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { Signer } from '../proof/signer.ts'
import { Certificates } from './certificates.ts'
import { ClientAuths } from './client-auth.ts'
import type { ClientKeys } from './client-key.ts'
import type { Dialer } from './dial.ts'
import { IssuerHttp } from './issuer-http.ts'
import { IssuerNonces } from './issuer-nonces.ts'
import { Metadata } from './metadata.ts'
import type { ProbeTokens } from './probe-token.ts'
import { ResourceMetadata } from './resource-metadata.ts'
import { Revoker } from './revoke.ts'
import { TokenCache } from './token-cache.ts'
import { TokenRequests } from './token-request.ts'

export interface TokenClientOptions {
  readonly dialer: Dialer
  readonly vault: Vault
  readonly clientKeys: ClientKeys
  readonly book: Live<RuleBook>
  readonly authority: Pick<Authority, 'issueJwt' | 'issueX509'>
  readonly clock: Clock
  /** Whether JWT-SVIDs may be issued. */
  readonly jwt: boolean
  /** The WIT-SVID over a held key; absent when client attestation is off. */
  readonly attest: ((entry: Entry, signer: Signer) => string) | undefined
  readonly timeout: Millis
  readonly renewBefore: Seconds
  readonly skew: Seconds
  readonly limit: number
  readonly random?: () => number
  readonly onToken: (kind: 'issued' | 'renewed' | 'reused' | 'revoked', fault: Fault | undefined) => void
}

/** The tokens, and the certificates that connections show. */
export interface TokenClient {
  readonly tokens: TokenCache
  readonly certificates: Certificates
  readonly probes: ProbeTokens
  stop(): void
}

/** Nothing is fetched until it is asked for. */
export function openTokenClient(options: TokenClientOptions): TokenClient {
  const { dialer, clientKeys, book, clock, onToken, timeout, skew } = options
  const http = new IssuerHttp({ dialer, clock, timeout })
  const metadata = new Metadata({ http, clock })
  const speaker = { reason: 'discovery_failed', name: 'the target' } as const
  const resources = new ResourceMetadata({ http: new IssuerHttp({ dialer, clock, timeout, speaker }), clock })
  const certificates = new Certificates(options)
  const clients = new ClientAuths({ ...options, keys: clientKeys, certificates })
  const nonces = new IssuerNonces()
  const shared = { http, metadata, clients, nonces, book, clock }
  const onRevoked = (fault: Fault | undefined) => onToken('revoked', fault)
  const revoker = new Revoker({ ...shared, onRevoked })
  const requests = new TokenRequests({ ...shared, resources, skew, revoker })
  const tokens = new TokenCache({ ...options, requests, revoker })
  const probes: ProbeTokens = {
    challenge: (need, signal) => requests.challenge(need, signal),
    request: (need, signal) => requests.request(need, signal),
    giveBack: (need, token) => revoker.add(need, token, Number.POSITIVE_INFINITY),
  }
  return { tokens, certificates, probes, stop: () => tokens.stop() }
}
