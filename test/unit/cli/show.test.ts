import { describe, expect, it } from 'vitest'
import { reportText } from '../../../src/cli/audit.ts'
import { explanationText } from '../../../src/cli/explain.ts'
import { reviewText, testsText } from '../../../src/cli/policy.ts'
import { revokedText } from '../../../src/cli/revoke.ts'
import { statusText } from '../../../src/cli/status.ts'
import { decisionText } from '../../../src/cli/watch.ts'
import type { AgentStatus } from '../../../src/operate/status.ts'
import type { Explanation } from '../../../src/policy/explain.ts'
import type { AuditRecord } from '../../../src/telemetry/audit.ts'
import { AGENT_STATUS } from '../../support/agent-status.ts'
import { NOW } from '../../support/io.ts'

describe('statusText', () => {
  it('grades every identity with its reasons, one line a reason', () => {
    expect(statusText(AGENT_STATUS, NOW, false).split('\n')).toEqual([
      'Holdfast 1.2.3 is ready (pid 42, trust domain example.org)',
      'holds 2 proof keys, serves 1 connection, policy 0123456789abcdef',
      'bundle 7: 1 X.509, 1 JWT, 0 WIT',
      '',
      'IDENTITY                   ENTRY   GRADE      KEYS   X509 EXPIRES',
      'spiffe://example.org/api   api     strong     2      in 42m',
      'spiffe://example.org/job   job     insecure   0      -',
      '  job: a bearer credential',
      '',
      'TARGET    GRADE',
      'orders    weak',
      'reports   weak',
      '  orders, reports: signs without a token',
      '',
      '! audit_gap: 3 records were lost',
      '  do: Find the record.',
      '',
      'REVOKED                    KIND        SINCE    ENDS',
      'spiffe://example.org/job   spiffe id   1m ago   in 1h',
      'orders                     target      1m ago   until lifted',
      '',
    ])
  })

  it('says what an agent that is not ready waits for', () => {
    const status: AgentStatus = { ...AGENT_STATUS, state: 'starting', pending: ['policy'] }
    expect(statusText(status, NOW, false)).toContain('is starting, waiting for policy (pid 42')
  })

  it('says it when nobody gets an identity', () => {
    expect(statusText({ ...AGENT_STATUS, identities: [] }, NOW, false)).toContain(
      'No entry: nobody gets an identity.',
    )
  })

  it('names three of many and counts the rest', () => {
    const identities = [1, 2, 3, 4, 5].map((index) => ({
      spiffe_id: `spiffe://example.org/${index}`,
      entry: `e${index}`,
      grade: 'weak' as const,
      because: ['the same'],
      keys: 0,
    }))
    expect(statusText({ ...AGENT_STATUS, identities }, NOW, false)).toContain(
      '  e1, e2, e3 and 2 more: the same\n',
    )
  })
})

const FACTS: Explanation = {
  allowed: false,
  selectors: ['unix:uid:1000', 'unix:path:/usr/bin/node'] as unknown as Explanation['selectors'],
  method: 'GET',
  origin: 'https://api.example.test',
  path: '/orders',
  policy: 'abc',
}

describe('explanationText', () => {
  it('goes from facts to entry to rule', () => {
    const weaknesses = [{ grade: 'weak', message: 'it names no namespace' }]
    const named = { name: 'api', spiffe_id: 'spiffe://example.org/api', place: 'identity.yaml:3' }
    const entry = { ...named, weaknesses }
    const found = {
      ...FACTS,
      allowed: true,
      entry,
      target: 'orders',
      rule: 'application.yaml:6',
    } as unknown as Explanation
    expect(explanationText(found, undefined, false).split('\n')).toEqual([
      'allowed, with a token of this workload',
      '  request  GET https://api.example.test/orders',
      '  facts    unix:uid:1000',
      '           unix:path:/usr/bin/node',
      '  entry    api gives spiffe://example.org/api  (identity.yaml:3)',
      '           weak: it names no namespace',
      '  target   orders',
      '  rule     application.yaml:6',
      '  policy   abc',
      '',
    ])
  })

  it('names the nearest entry, what it wants and whom to ask', () => {
    const near = {
      name: 'api',
      spiffe_id: 'spiffe://example.org/api',
      place: 'identity.yaml:3',
      missing: ['unix:gid:5'],
    }
    const found = {
      ...FACTS,
      reason: 'no_identity',
      owner: 'identity',
      message: 'no identity issued',
      action: 'Add it.',
      nearest: 'identity.yaml:3',
      nearest_entry: near,
    } as unknown as Explanation
    const text = explanationText(found, 77, false)
    expect(text).toMatch(/^refused: no identity issued\n/)
    for (const line of [
      '  facts of 77  unix:uid:1000',
      '  entry        none matches these facts',
      '  nearest      api gives spiffe://example.org/api  (identity.yaml:3)',
      '  it wants     unix:gid:5',
      '  change       Add it.',
      '  ask          whoever owns identity',
      '  reason       no_identity  https://holdfast.dev/reasons#no_identity',
    ])
      expect(text).toContain(`${line}\n`)
    expect(text.match(/nearest/g)).toHaveLength(1)
  })

  it('says that an observed refusal passes, and who else would be allowed', () => {
    const found = {
      ...FACTS,
      observed: true,
      message: 'no',
      allowed_as: ['spiffe://example.org/b'],
    } as unknown as Explanation
    const text = explanationText(found, undefined, false)
    expect(text).toContain('refused: no (observed only: the request passes)')
    expect(text).toContain('allowed as  spiffe://example.org/b\n')
  })

  it('says why facts are missing, where the agent knows', () => {
    const notes = ['unix:path is missing: x', 'unix:sha256 is missing: y']
    expect(explanationText({ ...FACTS, notes }, 7, false)).toContain(
      '  note        unix:path is missing: x\n              unix:sha256 is missing: y\n',
    )
  })

  it('says it when nothing could be attested', () => {
    expect(explanationText({ ...FACTS, selectors: [] }, undefined, false)).toContain('no selectors')
  })
})

describe('decisionText', () => {
  const RECORD: AuditRecord = {
    ts: '2026-03-01T12:04:05.678Z',
    seq: 9,
    event: 'sign.dpop',
    allowed: true,
    spiffe_id: 'spiffe://example.org/api',
    pid: 5,
    uid: 1000,
    target: 'orders',
    rule: 'application.yaml:6',
    method: 'GET',
    origin: 'https://api.example.test',
    path: '/orders',
    jti: 'the-jti',
    token: 'the-token-hash',
  }

  it.each<[string, Partial<AuditRecord>, string]>([
    [
      'an allowed request',
      {},
      '12:04:05  allow  sign.dpop       spiffe://example.org/api  GET https://api.example.test/orders  (application.yaml:6)\n',
    ],
    [
      'a refusal with its reason',
      { allowed: false, reason: 'policy_denied' },
      '12:04:05  deny   sign.dpop       policy_denied  spiffe://example.org/api  GET https://api.example.test/orders  (application.yaml:6)\n',
    ],
    [
      'an observed refusal',
      { observed: 'policy_denied' },
      '12:04:05  watch  sign.dpop       policy_denied  spiffe://example.org/api  GET https://api.example.test/orders  (application.yaml:6)\n',
    ],
    [
      'an audience',
      { event: 'deliver.jwt', origin: undefined, rule: undefined, audience: ['a', 'b'] },
      '12:04:05  allow  deliver.jwt     spiffe://example.org/api  for a, b\n',
    ],
    [
      'a process without identity',
      { spiffe_id: undefined, origin: undefined, rule: undefined, target: undefined },
      '12:04:05  allow  sign.dpop       pid 5 of uid 1000\n',
    ],
  ])('writes %s on one line', (_what, change, text) => {
    expect(decisionText({ ...RECORD, ...change }, false)).toBe(text)
  })

  it('shows nothing of token or proof', () => {
    expect(decisionText(RECORD, false)).not.toMatch(/the-jti|the-token-hash/)
  })

  it('lets no path forge a second line', () => {
    expect(
      decisionText({ ...RECORD, path: '/a\n12:00:00  allow' }, false)
        .trimEnd()
        .split('\n'),
    ).toHaveLength(1)
  })
})

describe('revokedText', () => {
  const rule = { kind: 'spiffe_id', value: 'spiffe://example.org/api', since: NOW } as const

  it('says what lives on elsewhere and until when', () => {
    const answer = {
      rule: { ...rule, until: NOW + 3600 },
      keys_destroyed: 2,
      connections_ended: 1,
      lives_elsewhere: [{ what: 'JWT-SVIDs that were delivered', until: NOW + 300 }],
    }
    const text = revokedText('spiffe id spiffe://example.org/api', answer, NOW, false)
    expect(text).toContain('until 2027-01-15 09:00:00Z: 2 keys destroyed, 1 connection ended.')
    expect(text).toContain('JWT-SVIDs that were delivered   2027-01-15 08:05:00Z   in 5m\n')
  })

  it('says it when nothing does', () => {
    const answer = { rule, keys_destroyed: 0, connections_ended: 0, lives_elsewhere: [] }
    expect(revokedText('x', answer, NOW, false)).toMatch(
      /until it is lifted.*\nNothing lives on elsewhere\.\n$/,
    )
  })
})

describe('reportText', () => {
  const report = {
    verdict: 'ok',
    records: 24,
    boots: 1,
    problems: [],
    notes: [],
    anchored: 2,
    unanchored: 1,
  } as const

  it('says how far anchors vouch for the log', () => {
    expect(reportText(report, 'log', false)).toBe(
      'ok: 24 records of 1 boot\n2 anchors found in the log; nothing outside it vouches for the last 1 record.\n',
    )
  })

  it('never calls a log without an anchor ok', () => {
    const text = reportText({ ...report, verdict: 'consistent, not anchored', anchored: 0 }, undefined, false)
    expect(text).toContain('consistent, not anchored')
    expect(text).not.toMatch(/\bok\b/)
    expect(text).toContain('--anchor FILE')
  })

  it('names the line of each problem', () => {
    const problems = [{ file: 'a.jsonl', line: 4, what: 'edited' }]
    expect(reportText({ ...report, verdict: 'broken', problems }, undefined, false)).toContain(
      '  ✗ a.jsonl:4: edited\n',
    )
  })
})

describe('policy texts', () => {
  it('list problems with their lines', () => {
    const problems = [{ file: 'a.yaml', line: 2, message: 'unknown key' }]
    const review = { passed: false, problems, weaknesses: [], notes: [], book: undefined, objects: [] }
    expect(reviewText(review, 1, false)).toBe('not valid: 1 problem\n  ✗ a.yaml:2: unknown key\n')
  })

  it('count tests and say why one failed', () => {
    const place = { file: 'a.yaml', line: 9 }
    const text = testsText(
      [
        { name: 'one', place, passed: true, message: 'allowed' },
        { name: 'two', place, passed: false, message: 'wanted deny' },
      ],
      false,
    )
    expect(text).toBe('  ✓ one\n  ✗ two\n      a.yaml:9: wanted deny\n1 passed, 1 failed\n')
    expect(testsText([], false)).toContain('No tests')
  })
})
