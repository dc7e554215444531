/** Policy for tests: texts in, rule book or problems out. */
import type { RuleBook } from '../../src/policy/book.ts'
import type { Question } from '../../src/policy/decide.ts'
import { parsePolicy } from '../../src/policy/load.ts'
import type { PolicyContext } from '../../src/policy/statements.ts'
import { canonicalUrl } from '../../src/proof/target.ts'
import { parseTrustDomain, parseWorkloadId } from '../../src/spiffe/id.ts'
import type { Selector } from '../../src/spiffe/selector.ts'

export const context: PolicyContext = {
  trustDomain: parseTrustDomain('example.org'),
  defaults: { x509Ttl: 3600, jwtTtl: 300 },
  now: () => 1_800_000_000,
}

const IDENTITY = `layer: identity
entries:
  - name: web
    spiffe_id: spiffe://example.org/web
    selectors: [unix:uid:1000, systemd:id:web.service]
    deliver: { x509: false, jwt: false, wit: false }
  - name: batch
    spiffe_id: spiffe://example.org/batch
    selectors: [unix:uid:2000, systemd:id:batch.service]
    deliver: { x509: false, jwt: false, wit: false }
targets:
  - name: orders
    server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }
    custody: headers
    max_ttl: 10m
`
const PLATFORM = `layer: platform
targets:
  - { name: orders, origins: ["https://orders.example.org"] }
`
const APPLICATION = `layer: application
targets:
  - name: orders
    grants:
      - name: read
        callers: [spiffe://example.org/web]
        methods: [GET, HEAD]
        paths: [/orders/**, /health]
`

/** The files of a small shop, one a layer: `web` may read orders. */
export const LAYERS = { identity: IDENTITY, platform: PLATFORM, application: APPLICATION } as const

export type Files = Readonly<Record<string, string>>

/** The rule book of `files` (name without `.yaml` to text); throws with the problems when there are any. */
export async function bookOf(files: Files = LAYERS, over: Partial<PolicyContext> = {}): Promise<RuleBook> {
  const result = await parsePolicy(textsOf(files), { ...context, ...over })
  if ('problems' in result) throw new Error(JSON.stringify(result.problems))
  return result.book
}

/** What is wrong with `files`, as `file:line: message`. */
export async function problemsIn(files: Files): Promise<readonly string[]> {
  const result = await parsePolicy(textsOf(files), context)
  return 'problems' in result ? result.problems.map((p) => `${p.file}:${p.line}: ${p.message}`) : []
}

function textsOf(files: Files) {
  return Object.entries(files).map(([name, text]) => ({ file: `${name}.yaml`, text }))
}

/** What `web` asks when it reads one order with its whole token. */
export function question(
  book: RuleBook,
  over: Partial<Omit<Question, 'url'>> & { url?: string } = {},
): Question {
  const spiffeId = over.spiffeId ?? parseWorkloadId('spiffe://example.org/web')
  const entry = book.entries.find((each) => each.spiffeId === spiffeId) ?? book.entries[0]
  if (!entry) throw new Error('the policy has no entry')
  return {
    door: 'headers',
    kind: 'dpop',
    spiffeId,
    entry,
    method: 'GET',
    token: 'full',
    selectors: ['unix:uid:1000', 'systemd:id:web.service'] as Selector[],
    ...over,
    url: canonicalUrl(over.url ?? 'https://orders.example.org/orders/1'),
  }
}
