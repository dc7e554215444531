import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { type Holder, Instances, limitsBy } from '../../../src/attest/instances.ts'
import { openProcess } from '../../../src/attest/peer.ts'
import { openUnit, unitOf } from '../../../src/attest/systemd.ts'
import { Fault } from '../../../src/base/fault.ts'
import { descriptorLimit } from '../../../src/base/native.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { bookOfEntries, entry } from '../../support/book.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeKernel } from '../../support/kernel.ts'

const WEB = entry('web', ['unix:uid:1000'])
const SELECTORS = new Set(['unix:uid:1000'] as unknown as readonly Selector[])

let kernel: FakeKernel
let clock: ManualClock
let instances: Instances
beforeEach(() => {
  kernel = new FakeKernel()
  clock = new ManualClock()
  instances = new Instances(clock, kernel, { processes: 4, processesPerOwner: 2 })
})

const open = (pid: number) => instances.openProcess(openProcess(pid, kernel))
const reasonOf = (signal: AbortSignal) => (signal.reason as Fault).reason
/** A connection: hears of the end once. */
function connect(holder: Holder) {
  const heard: string[] = []
  const tell = (fault: Fault) => heard.push(fault.reason)
  holder.callers.add(tell)
  return { heard, close: () => holder.callers.delete(tell) && instances.release(holder) }
}

describe('a process', () => {
  it('is one instance for all its connections, with one descriptor', () => {
    kernel.start(42)
    const holder = open(42)
    expect(open(42)).toBe(holder)
    expect(holder.instance.key).toBe('process:42:4200')
    expect(kernel.pidfds.size).toBe(1)
  })

  it('ends within 250 ms of its end, keys and connections with it', () => {
    const app = kernel.start(42)
    const holder = open(42)
    const connection = connect(holder)
    const lease = instances.lease(holder, WEB, SELECTORS)
    clock.advance(1_000)
    expect(lease.signal.aborted).toBe(false)
    kernel.end(app)
    clock.advance(250)
    expect(connection.heard).toEqual(['peer_gone'])
    expect([reasonOf(lease.signal), reasonOf(holder.instance.signal)]).toEqual(['peer_gone', 'peer_gone'])
    expect([instances.count, kernel.pidfds.size]).toEqual([0, 0])
  })

  it('is another instance when its pid is used again, even before the end was noticed', () => {
    kernel.end(kernel.start(42))
    kernel.start(42)
    const first = open(42)
    kernel.end(kernel.processes.get(42) ?? kernel.start(0))
    kernel.start(42)
    const second = open(42)
    expect(second).not.toBe(first)
    expect(first.instance.signal.aborted).toBe(true)
    expect([instances.count, kernel.pidfds.size]).toEqual([1, 1])
  })

  it('lives on without connections while keys hang on it', () => {
    const app = kernel.start(42)
    const holder = open(42)
    const connection = connect(holder)
    const lease = instances.lease(holder, WEB, SELECTORS)
    connection.close()
    clock.advance(60_000)
    expect(open(42)).toBe(holder)
    expect(lease.signal.aborted).toBe(false)
    kernel.end(app)
    clock.advance(250)
    expect(lease.signal.aborted).toBe(true)
  })

  it('is forgotten with its last connection when no key hangs on it', () => {
    kernel.start(42)
    const holder = open(42)
    const [first, second] = [connect(holder), connect(holder)]
    first.close()
    expect(instances.count).toBe(1)
    second.close()
    expect([instances.count, kernel.pidfds.size]).toEqual([0, 0])
    expect(reasonOf(holder.instance.signal)).toBe('lease_ended')
  })

  it('leaves nothing behind after 10,000 callers', () => {
    for (let pid = 1; pid <= 10_000; pid++) {
      const app = kernel.start(pid)
      const holder = open(pid)
      const connection = connect(holder)
      if (pid % 2) instances.lease(holder, WEB, SELECTORS)
      connection.close()
      kernel.end(app)
      if (pid % 3 === 0) clock.advance(250)
    }
    clock.advance(250)
    expect([instances.count, kernel.pidfds.size]).toEqual([0, 0])
  }, 60_000)

  it.each([
    ['one uid', 'too_many_connections', [1000, 1000, 1000]],
    ['all uids', 'overloaded', [1, 2, 3, 4, 5]],
  ])('is refused over the bound of %s, and its descriptor closed', (_whose, reason, uids) => {
    const last = uids.length
    const started = uids.map((uid, index) => kernel.start(index + 1, { uid }))
    for (let pid = 1; pid < last; pid++) open(pid)
    expect(() => open(last)).toThrow(expect.objectContaining({ reason }))
    expect(kernel.pidfds.size).toBe(last - 1)
    if (started[0]) kernel.end(started[0])
    open(last)
  })
})

it('holds no more processes than leaves descriptors for the rest of the agent', () => {
  expect(limitsBy(1_048_576)).toEqual({ processes: 32_768, processesPerOwner: 8_192 })
  expect(limitsBy(4_096)).toEqual({ processes: 2_048, processesPerOwner: 512 })
  const own = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
  expect(descriptorLimit()).toBe(Number(own?.[1]))
})

it('counts processes of a uid down to none', () => {
  for (let round = 0; round < 3; round++) {
    const started = [kernel.start(1), kernel.start(2)]
    open(1)
    open(2)
    for (const app of started) kernel.end(app)
    clock.advance(250)
  }
  expect(instances.count).toBe(0)
})

describe('a lease', () => {
  it('is the same for one identity and another for each of several', () => {
    kernel.start(42)
    const holder = open(42)
    const other = entry('other', ['unix:uid:1000'])
    const lease = instances.lease(holder, WEB, SELECTORS)
    expect(instances.lease(holder, WEB, SELECTORS)).toBe(lease)
    expect(instances.lease(holder, other, SELECTORS)).not.toBe(lease)
    expect(lease.key).toBe(holder.instance.key)
  })

  it.each([
    ['goes', []],
    ['wants more', [entry('web', ['unix:uid:1000', 'unix:gid:1'])]],
    ['ties keys to something else', [entry('web', ['unix:uid:1000'], { instance: 'identity' })]],
  ])('ends when the entry %s', (_how, entries) => {
    kernel.start(42)
    const lease = instances.lease(open(42), WEB, SELECTORS)
    instances.applyBook(bookOfEntries(WEB))
    expect(lease.signal.aborted).toBe(false)
    instances.applyBook(bookOfEntries(...entries))
    expect(reasonOf(lease.signal)).toBe('lease_ended')
    expect(instances.count).toBe(0)
  })

  it('of the identity on this node outlives processes, and ends with its entry', () => {
    const shared = entry('shared', ['unix:uid:1'], { instance: 'identity' })
    const lease = instances.lease(instances.openIdentity(), shared, SELECTORS)
    expect(lease.key).toBe('identity')
    instances.applyBook(bookOfEntries(shared))
    expect(lease.signal.aborted).toBe(false)
    instances.applyBook(bookOfEntries())
    expect(lease.signal.aborted).toBe(true)
  })
})

describe('revoke', () => {
  it('by process ends all of that process and nothing else', () => {
    kernel.start(42)
    kernel.start(421)
    const [one, two] = [open(42), open(421)]
    const [mine, other] = [instances.lease(one, WEB, SELECTORS), instances.lease(two, WEB, SELECTORS)]
    expect(instances.revoke({ pid: 42 }, new Fault('revoked'))).toBe(1)
    expect([reasonOf(mine.signal), reasonOf(one.instance.signal)]).toEqual(['revoked', 'revoked'])
    expect(other.signal.aborted).toBe(false)
    expect(instances.revoke({ process: 'process:421:42100' }, new Fault('revoked'))).toBe(1)
    expect(other.signal.aborted).toBe(true)
  })

  it('by SPIFFE ID ends its leases in every instance and leaves the others', () => {
    kernel.start(42)
    const holder = open(42)
    const other = entry('other', ['unix:uid:1000'])
    const mine = [
      instances.lease(holder, WEB, SELECTORS),
      instances.lease(instances.openIdentity(), WEB, SELECTORS),
    ]
    const left = instances.lease(holder, other, SELECTORS)
    expect(instances.revoke({ spiffeId: WEB.spiffeId }, new Fault('revoked'))).toBe(2)
    expect(mine.map(({ signal }) => signal.aborted)).toEqual([true, true])
    expect(left.signal.aborted).toBe(false)
    expect(holder.instance.signal.aborted).toBe(false)
  })
})

describe('a unit', () => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-cgroup-'))
  const unit = unitOf([{ hierarchy: '', path: '/web.service' }])
  const mounts = new Map([['', folder]])
  const cgroup = join(folder, 'web.service')
  beforeEach(() => {
    rmSync(cgroup, { recursive: true, force: true })
    mkdirSync(cgroup)
    writeFileSync(join(cgroup, 'cgroup.events'), 'populated 1\nfrozen 0\n')
    kernel.files.clear()
    kernel.addFile(cgroup, 7n)
    return () => rmSync(cgroup, { recursive: true, force: true })
  })

  const run = () => {
    if (!unit) throw new Error('no unit')
    return openUnit(unit, kernel, mounts)
  }

  it('runs while its cgroup is populated', () => {
    expect(run()).toMatchObject({ invocation: '7' })
    expect(run()?.hasEnded()).toBe(false)
  })

  it.each([
    ['its last process ends', () => writeFileSync(join(cgroup, 'cgroup.events'), 'populated 0\nfrozen 0\n')],
    ['its cgroup is gone', () => kernel.files.clear()],
    [
      'its cgroup is another’s',
      () => {
        kernel.files.clear()
        kernel.addFile(cgroup, 8n)
      },
    ],
    [
      'systemd began another invocation',
      () => {
        kernel.fileAttribute = (() => 'ab'.repeat(16)) as never
      },
    ],
  ])('has ended when %s', (_how, happen) => {
    const unitRun = run()
    happen()
    expect(unitRun?.hasEnded()).toBe(true)
  })

  it('cannot be opened where its cgroup is not mounted', () => {
    if (!unit) throw new Error('no unit')
    expect(openUnit(unit, kernel, new Map())).toBeUndefined()
    kernel.files.clear()
    expect(run()).toBeUndefined()
  })
})
