/** Rule books of entries alone, for what only asks who is whom. */
import type { RuleBook } from '../../src/policy/book.ts'
import type { Entry } from '../../src/policy/entry.ts'
import { indexEntries } from '../../src/policy/index-entries.ts'
import { podWeaknesses } from '../../src/policy/weaknesses-pods.ts'
import type { SpiffeId } from '../../src/spiffe/id.ts'
import type { Selector } from '../../src/spiffe/selector.ts'

/** An entry named `name` for `spiffe://example.test/<name>`. */
export function entry(name: string, selectors: readonly string[], over: Partial<Entry> = {}): Entry {
  return {
    name,
    spiffeId: `spiffe://example.test/${name}` as SpiffeId,
    selectors: selectors as readonly Selector[],
    x509Ttl: 3600,
    jwtTtl: 300,
    hint: '',
    deliver: { x509: true, jwt: true, wit: true },
    audiences: [],
    acceptedAt: [],
    dnsNames: [],
    federatesWith: [],
    sds: {},
    isProbe: false,
    instance: 'process',
    place: { file: 'identity.yaml', line: 1 },
    ...over,
  }
}

/** Only what attestation reads of a book is there, and what is said of entries of pods. */
export function bookOfEntries(...entries: readonly Entry[]): RuleBook {
  const index = indexEntries(entries)
  const book: Pick<
    RuleBook,
    'entries' | 'identities' | 'entriesFor' | 'misfits' | 'wantsSelector' | 'weaknesses'
  > = {
    entries,
    identities: () => entries,
    misfits: () => [],
    weaknesses: podWeaknesses({ entries, templates: [] }),
    entriesFor: index.find,
    wantsSelector: index.wants,
  }
  return book as RuleBook
}
