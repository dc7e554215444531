/** The bundles that a caller may see: that of its own trust domain, and those its entries federate with. */
import type { Live } from '../base/live.ts'
import type { Entry } from '../policy/entry.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import type { TrustDomain } from '../spiffe/id.ts'

/** Bundles of other trust domains, by name. */
export type FederatedBundles = ReadonlyMap<TrustDomain, Bundle>

export interface TrustedBundles {
  readonly own: Live<Bundle>
  readonly federated: Live<FederatedBundles>
}

/** The foreign ones that `entries` federate with and that are known, sorted by trust domain. */
export function federatedOf(bundles: TrustedBundles, entries: readonly Entry[]): readonly Bundle[] {
  const wanted = new Set(entries.flatMap((entry) => entry.federatesWith))
  const known = [...bundles.federated.get().values()].filter(({ trustDomain }) => wanted.has(trustDomain))
  return known.sort((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1))
}
