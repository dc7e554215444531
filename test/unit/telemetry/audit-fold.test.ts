/** Refusals that one caller repeats: counted, never lost, and never so many that older records are pushed out. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { AuditFacts } from '../../../src/telemetry/audit.ts'
import { verifyAudit } from '../../../src/telemetry/audit-verify.ts'
import { AuditFolder, SIGNED } from '../../support/audit.ts'

const REFUSED: AuditFacts = {
  event: 'sign.dpop',
  allowed: false,
  reason: 'no_identity',
  owner: 'identity',
  pid: 7,
  uid: 1000,
}

describe('threats row 26: refusals in the audit log', () => {
  let folder: AuditFolder
  beforeEach(() => {
    folder = new AuditFolder()
  })
  afterEach(() => folder.remove())

  /** Without those that the chain adds. */
  const told = () => folder.records().filter(({ event }) => !String(event).startsWith('audit.'))
  const counted = () => told().reduce((sum, { count }) => sum + Number(count ?? 1), 0)
  const second = () => folder.clock.advance(1_050)

  it('are each written at once, as long as one caller repeats them ten times a second', () => {
    const audit = folder.open()
    audit.append(REFUSED)
    audit.commit()
    expect(told()).toHaveLength(1)
    for (let at = 1; at < 10; at += 1) audit.append(REFUSED)
    audit.commit()
    second()
    expect(told()).toHaveLength(10)
    expect(told().every((record) => !('count' in record))).toBe(true)
  })

  it('are beyond that one record with their number, at the end of the second', () => {
    const audit = folder.open()
    for (let at = 0; at < 5_000; at += 1) audit.append(REFUSED)
    audit.commit()
    expect(told()).toHaveLength(10)
    second()
    expect(told()).toHaveLength(11)
    expect(told().at(-1)).toMatchObject({ ...REFUSED, count: 4_990 })
  })

  it('that go on cost two records a second, and begin anew when they have stopped', () => {
    const audit = folder.open()
    for (let at = 0; at < 10; at += 1) {
      for (let each = 0; each < 5_000; each += 1) audit.append(REFUSED)
      folder.clock.advance(1_000)
    }
    second()
    expect(told()).toHaveLength(11 + 9 * 2)
    expect(counted()).toBe(50_000)
    folder.clock.advance(5_000)
    for (let at = 0; at < 10; at += 1) audit.append(REFUSED)
    audit.commit()
    expect(told()).toHaveLength(29 + 10)
  })

  it('of others, of other reasons and of other processes are told beside them, and so is all that is allowed', () => {
    const audit = folder.open()
    for (let at = 0; at < 100; at += 1) audit.append(REFUSED)
    const others: AuditFacts[] = [
      { ...REFUSED, pid: 8 },
      { ...REFUSED, uid: 1001 },
      { ...REFUSED, reason: 'policy_denied' },
      { ...REFUSED, event: 'deliver.jwt' },
    ]
    for (const other of others) audit.append(other)
    for (let at = 0; at < 100; at += 1) audit.append({ ...SIGNED, uid: 1000 })
    audit.commit()
    expect(told()).toHaveLength(10 + 4 + 100)
    expect(told().filter(({ allowed }) => allowed === true)).toHaveLength(100)
    expect(told().slice(10, 14)).toMatchObject(others)
  })

  it('that one uid varies are bounded as well, with their number by event and reason', () => {
    const audit = folder.open()
    for (let pid = 0; pid < 5_000; pid += 1) audit.append({ ...REFUSED, pid, jti: `jti-${pid}` })
    audit.append({ ...REFUSED, uid: 1001 })
    audit.commit()
    second()
    expect(told().length).toBeLessThan(1_000)
    expect(told().some(({ uid }) => uid === 1001)).toBe(true)
    const { pid, ...rest } = REFUSED
    expect(told().at(-1)).toMatchObject({ ...rest, count: expect.any(Number) })
    expect(told().at(-1)).not.toHaveProperty('pid')
    expect(counted()).toBe(5_001)
  })

  it('with the longest texts are no more bytes', () => {
    const audit = folder.open()
    const audience = Array.from({ length: 16 }, () => 'x'.repeat(1_024))
    for (let pid = 0; pid < 1_000; pid += 1) audit.append({ ...REFUSED, pid, audience })
    second()
    expect(folder.text().length).toBeLessThan(128 * 1024)
    expect(counted()).toBe(1_000)
  })

  it('of many uids are bounded together', () => {
    const audit = folder.open()
    for (let uid = 0; uid < 50_000; uid += 1) audit.append({ ...REFUSED, uid })
    second()
    expect(folder.text().length).toBeLessThan(1024 * 1024)
    expect(counted()).toBe(50_000)
  })

  it('that one service reports of strangers have more room, and name the route', () => {
    const audit = folder.open()
    const verify: AuditFacts = { ...REFUSED, event: 'verify', reason: 'token_forged', route: 'api' }
    for (let at = 0; at < 5_000; at += 1) audit.append({ ...verify, token: `token-${at}` })
    second()
    expect(told().length).toBeGreaterThan(300)
    expect(told().length).toBeLessThan(2_000)
    expect(told().at(-1)).toMatchObject({ event: 'verify', route: 'api', uid: 1000 })
    expect(counted()).toBe(5_000)
  })

  it('that the agent has of itself are never counted together', () => {
    const audit = folder.open()
    for (let at = 0; at < 50; at += 1)
      audit.append({ event: 'policy.load', allowed: false, reason: 'policy_invalid' })
    audit.commit()
    expect(told()).toHaveLength(50)
  })

  it('leave a chain that verifies, and their number before the last checkpoint', () => {
    const audit = folder.open()
    for (let at = 0; at < 100; at += 1) audit.append({ ...REFUSED, jti: `jti-${at}` })
    audit.close()
    expect(told()).toHaveLength(11)
    expect(told().at(-1)).toMatchObject({ count: 90 })
    expect(folder.records().at(-1)).toMatchObject({ event: 'audit.checkpoint' })
    expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({ verdict: 'ok', problems: [] })
    folder.clock.advance(10_000)
    expect(told()).toHaveLength(11)
  })

  it('are seen by those who watch', () => {
    const audit = folder.open()
    const seen: unknown[] = []
    audit.watch(({ count }) => seen.push(count))
    for (let at = 0; at < 20; at += 1) audit.append(REFUSED)
    second()
    expect(seen.filter((count) => count !== undefined)).toEqual([10])
  })
})
