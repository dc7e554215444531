import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { check } from '../../../src/cli/check.ts'
import {
  agentGroups,
  auditFindings,
  authorityFindings,
  hardeningFindings,
  policyFindings,
  stateFindings,
} from '../../../src/cli/check-agent.ts'
import { type Finding, groupsText, summaryText } from '../../../src/cli/check-finding.ts'
import {
  clockGroup,
  directoryGroup,
  lockedMemory,
  type Machine,
  machineGroup,
} from '../../../src/cli/check-machine.ts'
import type { AgentStatus } from '../../../src/operate/status.ts'
import { AGENT_STATUS } from '../../support/agent-status.ts'
import { keptIo, NOW } from '../../support/io.ts'
import { refusal, startJsonAgent } from '../../support/json-agent.ts'

const graded = (findings: readonly Finding[]) => findings.map(({ id, grade }) => `${id} ${grade}`)

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

describe('machineGroup', () => {
  const GOOD: Machine = {
    node: '20.19.0',
    kernel: '6.5.0-14-generic',
    uid: 1000,
    memlock: 8_388_608,
    isProcVisible: true,
    hasCgroup2: true,
  }

  it('finds nothing wrong with a good machine', () => {
    expect(machineGroup(GOOD).findings.every(({ grade }) => grade === 'ok')).toBe(true)
  })

  it.each<[string, Partial<Machine>, string]>([
    ['an old Node', { node: '20.18.3' }, 'node_version error'],
    ['an older Node', { node: '18.20.0' }, 'node_version error'],
    ['a newer Node', { node: '24.1.0' }, 'node_version ok'],
    ['a kernel without SO_PEERPIDFD', { kernel: '6.4.9' }, 'kernel_pidfd warn'],
    ['a kernel of the last series', { kernel: '5.15.0' }, 'kernel_pidfd warn'],
    ['a kernel without pidfd_open', { kernel: '5.2.0' }, 'kernel_pidfd error'],
    ['a newer kernel', { kernel: '7.0.1' }, 'kernel_pidfd ok'],
    ['little memory that can be locked', { memlock: 65_536 }, 'memlock warn'],
    ['the same for root, whom no limit binds', { memlock: 65_536, uid: 0 }, 'memlock ok'],
    ['a /proc that hides', { isProcVisible: false }, 'proc_visible warn'],
    ['no cgroup v2', { hasCgroup2: false }, 'cgroup2 warn'],
  ])('grades %s', (_what, change, finding) => {
    expect(graded(machineGroup({ ...GOOD, ...change }).findings)).toContain(finding)
  })

  it.each([
    ['Max locked memory         8388608              8388608              bytes', 8_388_608],
    ['Max locked memory         unlimited            unlimited            bytes', Number.POSITIVE_INFINITY],
    ['', undefined],
  ])('reads the limit in %j', (text, bytes) => expect(lockedMemory(text)).toBe(bytes))
})

describe('directoryGroup', () => {
  it('is content with a directory as the agent makes it', () => {
    chmodSync(dir, 0o755)
    mkdirSync(join(dir, 'private'), { mode: 0o700 })
    expect(graded(directoryGroup(dir, false).findings)).toEqual([
      'directory ok',
      'socket_path ok',
      'private_directory ok',
    ])
  })

  it('lets a missing one be before there is an agent, and not after', () => {
    expect(graded(directoryGroup(join(dir, 'none'), true).findings)).toContain('directory ok')
    expect(graded(directoryGroup(join(dir, 'none'), false).findings)).toContain('directory error')
  })

  it('finds one that others may write, one that is a link, one that is open', () => {
    chmodSync(dir, 0o777)
    mkdirSync(join(dir, 'private'))
    chmodSync(join(dir, 'private'), 0o755)
    symlinkSync(dir, join(dir, 'link'))
    expect(graded(directoryGroup(dir, false).findings)).toEqual([
      'directory error',
      'socket_path ok',
      'private_directory error',
    ])
    expect(graded(directoryGroup(join(dir, 'link'), false).findings)[0]).toBe('directory error')
  })

  it('finds one in a directory where others may put theirs', () => {
    const inner = join(dir, 'inner')
    mkdirSync(inner)
    chmodSync(dir, 0o777)
    expect(graded(directoryGroup(inner, false).findings)[0]).toBe('directory error')
    chmodSync(dir, 0o1777)
    expect(graded(directoryGroup(inner, false).findings)[0]).toBe('directory ok')
  })

  it('finds a path that is too long for a socket', () => {
    expect(graded(directoryGroup(`/tmp/${'x'.repeat(100)}`, true).findings)).toContain('socket_path error')
  })
})

describe('clockGroup', () => {
  it.each([
    [NOW, 'clock_set ok'],
    [86_400, 'clock_set error'],
  ])('grades a clock at %d', (now, finding) => expect(graded(clockGroup(now).findings)).toContain(finding))
})

describe('what an agent says of itself', () => {
  const degraded = (code: string): AgentStatus => ({
    ...AGENT_STATUS,
    degraded: [{ code, message: 'is so', action: 'Mend it.' }],
  })

  it.each<[string, readonly Finding[], readonly string[]]>([
    ['a ready agent of this version', stateFindings(AGENT_STATUS, '1.2.3'), ['ready ok', 'version ok']],
    ['another version', stateFindings(AGENT_STATUS, '2.0.0'), ['ready ok', 'version warn']],
    [
      'a passive one',
      stateFindings({ ...AGENT_STATUS, state: 'passive' }, '1.2.3'),
      ['ready error', 'version ok'],
    ],
    [
      'a missing pidfd',
      stateFindings(degraded('pidfd_missing'), '1.2.3'),
      ['ready ok', 'version ok', 'pidfd_missing warn'],
    ],
    ['full hardening', hardeningFindings(AGENT_STATUS), ['hardening ok']],
    ['a gap in hardening', hardeningFindings(degraded('hardening_dumpable')), ['hardening_dumpable warn']],
    [
      'insecure and weak statements',
      policyFindings(AGENT_STATUS),
      ['policy_loaded ok', 'entries ok', 'identity_insecure error', 'target_weak warn'],
    ],
    [
      'a failed reload',
      policyFindings({ ...degraded('reload_failed'), identities: [], targets: [] }),
      ['reload_failed error', 'no_entries warn'],
    ],
    ['a live authority', authorityFindings(AGENT_STATUS, NOW), ['authority ok', 'renewal ok']],
    ['an overdue SVID', authorityFindings(AGENT_STATUS, NOW + 2520), ['authority ok', 'renewal error']],
    [
      'an empty bundle',
      authorityFindings({ ...AGENT_STATUS, bundle: { ...AGENT_STATUS.bundle, x509: 0 } }, NOW),
      ['authority error', 'renewal ok'],
    ],
    ['a gap in the audit log', auditFindings(AGENT_STATUS), ['audit_gap warn']],
    [
      'an audit log that cannot be written',
      auditFindings(degraded('audit_unavailable')),
      ['audit_unavailable error'],
    ],
    ['a sound audit log', auditFindings(degraded('pidfd_missing')), ['audit ok']],
  ])('grades %s', (_what, findings, expected) => expect(graded(findings)).toEqual(expected))

  it('shows both clocks where an SVID is overdue', () => {
    const [, overdue] = authorityFindings(AGENT_STATUS, NOW + 2520)
    expect(overdue?.why).toEqual([
      'spiffe://example.org/api expired 2027-01-15 08:42:00Z, now 2027-01-15 08:42:00Z',
    ])
  })

  it('ends with the agent group where nobody answers, and names every place', async () => {
    const groups = await agentGroups({ dir }, keptIo())
    expect(groups.map(({ name }) => name)).toEqual(['agent'])
    expect(groups[0]?.findings[0]?.why).toEqual([`${dir}/public/workload.sock (--dir): does not exist`])
  })

  it('does not call a closed admin door a failure', async () => {
    await using agent = await startJsonAgent({
      'GET /v1/identity': refusal('no_identity', 403),
      'GET /v1/status': refusal('admin_denied', 403),
    })
    const [group] = await agentGroups({ dir: agent.dir }, keptIo())
    expect(graded(group?.findings ?? [])).toEqual(['socket ok', 'identity ok', 'admin skip'])
  })

  it('calls it one that an agent serves nobody', async () => {
    await using agent = await startJsonAgent({ 'GET /v1/identity': refusal('not_ready', 503) })
    const [group] = await agentGroups({ dir: agent.dir }, keptIo())
    expect(graded(group?.findings ?? [])).toEqual(['socket ok', 'identity error'])
  })
})

describe('groupsText', () => {
  const GROUPS = [
    {
      name: 'one',
      findings: [
        { id: 'a', grade: 'ok', what: 'fine' },
        { id: 'b', grade: 'warn', what: 'not fine', why: ['for this reason'], action: 'Mend it.' },
      ],
    },
    { name: 'two', findings: [{ id: 'c', grade: 'skip', what: 'not seen' }] },
  ] as const

  it('marks each line and links what is wrong', () => {
    expect(groupsText(GROUPS, false, false)).toBe(
      'one\n  ✓ fine\n  ! not fine\n    for this reason\n    do: Mend it.\n    see https://holdfast.dev/checks#b\n\ntwo\n  - not seen\n\n',
    )
    expect(summaryText(GROUPS, false)).toBe('1 passed, 1 warning, 0 failed, 1 not looked at\n')
  })

  it('leaves out what is fine when it is short', () => {
    expect(groupsText(GROUPS, true, false)).not.toMatch(/✓|two/)
  })

  it('lets no text of the agent forge a line', () => {
    const findings: readonly Finding[] = [{ id: 'x', grade: 'error', what: 'a\n  ✓ b', why: ['c\n  ✓ d'] }]
    expect(groupsText([{ name: 'one', findings }], false, false)).not.toMatch(/^ {2}✓/m)
  })
})

describe('check', () => {
  const CONFIG = 'trust_domain: example.org\npolicy: { files: [policy.yaml] }\n'
  const POLICY =
    'layer: identity\nentries:\n  - spiffe_id: spiffe://example.org/api\n    selectors: [unix:uid:1]\n    deliver: { x509: false, jwt: false, wit: false }\n'

  function write(config: string, policy: string): string {
    writeFileSync(join(dir, 'policy.yaml'), policy)
    writeFileSync(join(dir, 'holdfast.yaml'), config)
    return join(dir, 'holdfast.yaml')
  }

  async function filesFound(config: string, policy: string): Promise<readonly string[]> {
    const io = keptIo()
    await check({ pre: true, config: write(config, policy), dir, output: 'json' }, io)
    const { groups } = JSON.parse(io.written.out) as { groups: { name: string; findings: Finding[] }[] }
    return graded(groups.find(({ name }) => name === 'files')?.findings ?? [])
  }

  it.each([
    ['good files', CONFIG, POLICY, ['config ok', 'policy ok', 'policy_weak warn', 'policy_tests ok']],
    [
      'the Pods API and no socket of it',
      `${CONFIG}kubernetes: { attestor: pods_api, pods_api: { socket: none.sock } }\n`,
      POLICY,
      ['config ok', 'k8s_pods_api error', 'policy ok', 'policy_weak warn', 'policy_tests ok'],
    ],
    [
      'the Pods API where there is a socket of it',
      `${CONFIG}kubernetes: { attestor: auto, pods_api: { socket: none.sock } }\n`,
      POLICY,
      ['config ok', 'k8s_pods_api ok', 'policy ok', 'policy_weak warn', 'policy_tests ok'],
    ],
    ['an unknown setting', `${CONFIG}wti: on\n`, POLICY, ['config error']],
    ['an unknown key of policy', CONFIG, POLICY.replace('entries', 'entris'), ['config ok', 'policy error']],
  ])('reads %s before there is an agent', async (_what, config, policy, found) => {
    expect(await filesFound(config, policy)).toEqual(found)
  })

  it('fails on warnings only when told to', async () => {
    const options = { pre: true, config: write(CONFIG, POLICY), dir }
    expect(await check(options, keptIo())).toBe(0)
    expect(await check({ ...options, failOn: 'warn' }, keptIo())).toBe(1)
  })

  it('waits until everything passes, and not for ever', async () => {
    await using agent = await startJsonAgent({ 'GET /v1/identity': refusal('not_ready', 503) })
    const io = keptIo()
    expect(await check({ dir: agent.dir, wait: '3s', output: 'short' }, io)).toBe(1)
    expect(io.now()).toBeGreaterThanOrEqual(NOW + 3)
    expect(agent.asked.filter(({ route }) => route === 'GET /v1/identity')).toHaveLength(4)
  })
})
