/** Trust bundles that the application hands in as documents; each document is parsed once. */
import type { Bundle, BundleOf } from '../spiffe/bundle.ts'
import { parseBundle } from '../spiffe/bundle.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import type { CommonOptions } from './options.ts'

interface Parsed {
  readonly text: string
  readonly bundle: Bundle
}

const DOMAINS_LIMIT = 1_000

/** Throws bundle_missing for a document that cannot be used; without documents no trust domain is trusted. */
export function bundlesOf(find: CommonOptions['bundleOf']): BundleOf {
  const known = new Map<TrustDomain, Parsed>()
  return (trustDomain) => {
    const text = find?.(trustDomain)
    if (text === undefined) return undefined
    const last = known.get(trustDomain)
    if (last?.text === text) return last.bundle
    const bundle = parseBundle(text, trustDomain)
    if (known.size >= DOMAINS_LIMIT) known.clear()
    known.set(trustDomain, { text, bundle })
    return bundle
  }
}
