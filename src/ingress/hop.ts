/** Which hop a request came through last, and whose certificate therefore counts. */
import { Fault } from '../base/fault.ts'
import { isInRanges } from '../policy/address.ts'
import type { Hop, RoutePlatform } from '../policy/route.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Unmet } from './checking.ts'
import { forwardedCertificate } from './forwarded-certificate.ts'
import type { ChannelPeer, RawHeaders } from './inbound.ts'

/** The caller's channel, as far as it can be known here. */
export interface Channel {
  /** The hop in between; undefined when the caller connected itself. */
  readonly hop: Hop | undefined
  /** The certificate of the caller, not that of the hop. */
  readonly certificate: Buffer | undefined
  /** The caller's SPIFFE ID by mutual TLS with the verifier's service; never by a header. */
  readonly spiffeId: SpiffeId | undefined
}

/** `unmet` hears hop_unexpected when the route states hops and the peer is none of them: then no certificate counts. */
export function channelOf(
  platform: RoutePlatform,
  peer: ChannelPeer,
  headers: RawHeaders,
  unmet: Unmet,
): Channel {
  const { hops } = platform
  if (hops.length === 0) return { hop: undefined, certificate: peer.certificate, spiffeId: peer.spiffeId }
  const hop = hops.find((one) => isHop(one, peer))
  if (!hop) {
    const who = peer.spiffeId ?? peer.address ?? 'a peer that nothing is known of'
    const wanted = hops.map(({ name }) => name).join(', ')
    unmet(new Fault('hop_unexpected', `the request came from ${who}, wanted ${wanted}`))
    return { hop, certificate: undefined, spiffeId: undefined }
  }
  const certificate = hop.certificate === 'none' ? undefined : forwardedCertificate(headers, hop.certificate)
  return { hop, certificate, spiffeId: undefined }
}

/** A hop with a SPIFFE ID is never known by its address: addresses are for those that have no certificate. */
function isHop({ spiffeId, addresses }: Hop, peer: ChannelPeer): boolean {
  if (spiffeId !== undefined) return peer.spiffeId === spiffeId
  return peer.address !== undefined && isInRanges(peer.address, addresses)
}
