import { beforeEach, describe, expect, it, vi } from 'vitest'
import { Attestation, type AttestedWorkload } from '../../../src/attest/identify.ts'
import { cgroupMounts } from '../../../src/attest/systemd.ts'
import { Fault } from '../../../src/base/fault.ts'
import { Live } from '../../../src/base/live.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { bookOfEntries, entry } from '../../support/book.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeKernel, type FakeProcess } from '../../support/kernel.ts'

const WEB = entry('web', ['unix:uid:1000'])
const APP = entry('app', ['unix:path:/bin/app'])
const OTHER = entry('other', ['unix:uid:2000'])

let kernel: FakeKernel
let clock: ManualClock
let health: Health
let book: Live<ReturnType<typeof bookOfEntries>>
let attestation: Attestation
beforeEach(() => {
  kernel = new FakeKernel()
  clock = new ManualClock()
  health = new Health()
  book = new Live(bookOfEntries(WEB, APP, OTHER))
  attestation = new Attestation({ clock, book, health, kernel })
})

const attest = (process: FakeProcess) => attestation.attest(kernel.connect(process))
const names = (workload: AttestedWorkload) => workload.entries().map((each) => each.name)
const reasonOf = (signal: AbortSignal) => (signal.reason as Fault | undefined)?.reason

function faultOf(run: () => unknown): string | undefined {
  try {
    run()
  } catch (error) {
    return error instanceof Fault ? error.reason : String(error)
  }
  return undefined
}

describe('a workload', () => {
  it('has the entries whose selectors hold, in policy order', () => {
    const workload = attest(kernel.start(42))
    expect(names(workload)).toEqual(['web', 'app'])
    expect(workload.peer).toMatchObject({ pid: 42, uid: 1000, gid: 1000 })
    expect(workload.notes).toEqual([])
  })

  it.each([
    ['in a pid namespace of its own', { namespacePids: [42, 1] }],
    ['in a container’s cgroup', { cgroup: `0::/docker/${'ab'.repeat(32)}` }],
    ['of the overflow uid', { uid: 65_534 }],
  ])('%s has no selectors and says why', (_where, facts) => {
    book.set(bookOfEntries(WEB, APP, entry('any', ['unix:uid:65534'])))
    const workload = attest(kernel.start(42, facts))
    expect(workload.selectors).toEqual([])
    expect(workload.entries()).toEqual([])
    expect(workload.notes.length).toBe(1)
  })

  it('in the agent’s own container is on the agent’s host', () => {
    const cgroup = `0::/docker/${'ab'.repeat(32)}`
    kernel.start(process.pid, { cgroup })
    attestation = new Attestation({ clock, book, health, kernel })
    expect(names(attest(kernel.start(42, { cgroup })))).toEqual(['web', 'app'])
    const nested = `${cgroup}/docker/${'cd'.repeat(32)}`
    expect(names(attest(kernel.start(43, { cgroup: nested })))).toEqual([])
  })

  it('keeps its answer until policy changes, and then gives a fresh one', () => {
    const workload = attest(kernel.start(42))
    const before = workload.entries()
    expect(workload.entries()).toBe(before)
    book.set(bookOfEntries(APP))
    expect(workload.entries()).not.toBe(before)
    expect(names(workload)).toEqual(['app'])
  })

  it('refuses calls after its connector has ended, before any timer ran', () => {
    const app = kernel.start(42)
    const workload = attest(app)
    workload.peer.check()
    kernel.end(app)
    expect(faultOf(() => workload.peer.check())).toBe('peer_gone')
    expect(reasonOf(workload.signal)).toBe('peer_gone')
    expect(reasonOf(workload.peer.process.signal)).toBe('peer_gone')
    expect(workload.entries()).toEqual([])
    expect(kernel.pidfds.size).toBe(0)
  })

  it('refuses calls after exec of another program, for good', () => {
    const app = kernel.start(42)
    const workload = attest(app)
    kernel.addFile('/bin/other')
    app.program = '/bin/other'
    expect(faultOf(() => workload.peer.check())).toBe('peer_changed')
    app.program = '/bin/app'
    expect(faultOf(() => workload.peer.check())).toBe('peer_changed')
    expect(names(attest(app))).toEqual(['web', 'app'])
  })

  it('ends on its own within 250 ms of its process', () => {
    const app = kernel.start(42)
    const workload = attest(app)
    const key = workload.instanceOf(WEB)
    kernel.end(app)
    clock.advance(250)
    expect([workload.signal.aborted, key.signal.aborted]).toEqual([true, true])
    expect(attestation.counts).toEqual({ connections: 0, instances: 0 })
  })

  it('ends with its connection, and the keys of the living process do not', () => {
    const app = kernel.start(42)
    const [first, second] = [attest(app), attest(app)]
    const instance = first.instanceOf(WEB)
    first.close()
    first.close()
    expect(reasonOf(first.signal)).toBe('lease_ended')
    expect(second.signal.aborted).toBe(false)
    second.close()
    expect(instance.signal.aborted).toBe(false)
    expect(attest(app).instanceOf(WEB)).toBe(instance)
  })

  it('gives no instance for an entry that it does not have, or has lost', () => {
    const workload = attest(kernel.start(42))
    expect(faultOf(() => workload.instanceOf(OTHER))).toBe('lease_ended')
    workload.instanceOf(WEB)
    book.set(bookOfEntries(APP))
    expect(faultOf(() => workload.instanceOf(WEB))).toBe('lease_ended')
    workload.close()
    expect(faultOf(() => workload.instanceOf(APP))).toBe('lease_ended')
  })

  it('ties keys to what today’s entry says, whatever entry is shown', () => {
    const workload = attest(kernel.start(42))
    expect(workload.instanceOf(WEB).key).toBe('process:42:4200')
    book.set(bookOfEntries(entry('web', ['unix:uid:1000'], { instance: 'identity' })))
    expect(workload.instanceOf(WEB).key).toBe('identity')
  })

  it('outside of a unit has no instance for a unit’s entry', () => {
    book.set(bookOfEntries(entry('web', ['unix:uid:1000'], { instance: 'unit' })))
    const workload = attest(kernel.start(42))
    expect(faultOf(() => workload.instanceOf(WEB))).toBe('attestation_failed')
  })

  it('that has moved to another unit gets no key of either', () => {
    book.set(bookOfEntries(entry('web', ['systemd:id:web.service'], { instance: 'unit' })))
    const app = kernel.start(42, { cgroup: '0::/system.slice/web.service' })
    const workload = attest(app)
    expect(names(workload)).toEqual(['web'])
    app.cgroup = '0::/system.slice/other.service'
    for (const name of ['web', 'other'])
      kernel.addFile(`${cgroupMounts().get('')}/system.slice/${name}.service`)
    expect(faultOf(() => workload.instanceOf(WEB))).toBe('attestation_failed')
  })
})

describe('a change of policy', () => {
  it('ends what hangs on a lost entry, and tells the watcher of the rest', () => {
    const workload = attest(kernel.start(42))
    const [web, app] = [workload.entrySignal(WEB), workload.entrySignal(APP)]
    const key = workload.instanceOf(WEB)
    const seen: string[][] = []
    const stop = workload.watchEntries((entries) => seen.push(entries.map(({ name }) => name)))
    book.set(bookOfEntries(APP))
    expect([reasonOf(web), app.aborted, reasonOf(key.signal)]).toEqual(['lease_ended', false, 'lease_ended'])
    expect(workload.signal.aborted).toBe(false)
    stop()
    book.set(bookOfEntries(WEB))
    expect(seen).toEqual([['app']])
    expect(app.aborted).toBe(true)
    expect(faultOf(() => workload.entrySignal(APP))).toBe('lease_ended')
  })

  it('gives a new key instance to an entry that comes back', () => {
    const workload = attest(kernel.start(42))
    const before = workload.instanceOf(WEB)
    book.set(bookOfEntries(APP))
    book.set(bookOfEntries(WEB))
    const after = workload.instanceOf(WEB)
    expect(after.key).toBe(before.key)
    expect([before.signal.aborted, after.signal.aborted]).toEqual([true, false])
  })
})

describe('revoke', () => {
  it.each([
    ['SPIFFE ID', { spiffeId: 'spiffe://example.test/web' }],
    ['pid', { pid: 42 }],
    ['process', { process: 'process:42:4200' }],
  ])('by %s ends streams and keys at once, and no others', (_by, filter) => {
    const workload = attest(kernel.start(42))
    const other = attest(kernel.start(43, { uid: 2000, program: undefined }))
    const [instance, kept] = [workload.instanceOf(WEB), other.instanceOf(OTHER)]
    const entrySignal = workload.entrySignal(APP)
    expect(attestation.revoke(filter)).toEqual({ workloads: 1, leases: 1 })
    expect([workload.signal, instance.signal, entrySignal].map(reasonOf)).toEqual(Array(3).fill('revoked'))
    expect([other.signal.aborted, kept.signal.aborted]).toEqual([false, false])
    expect(faultOf(() => workload.peer.check())).toBe('revoked')
  })

  it('by a pid that was given away since does not touch its next owner', () => {
    const first = kernel.start(42)
    attest(first)
    kernel.end(first)
    const next = attest(kernel.start(42, { startTime: '9900' }))
    attestation.revoke({ process: 'process:42:4200' })
    expect(next.signal.aborted).toBe(false)
  })
})

describe('stop', () => {
  it('ends every lease, closes every descriptor and refuses later callers', () => {
    const app = kernel.start(42)
    const workload = attest(app)
    const instance = workload.instanceOf(WEB)
    attestation.stop()
    expect([workload.signal, instance.signal].map(reasonOf)).toEqual(['draining', 'draining'])
    expect(kernel.pidfds.size).toBe(0)
    expect(faultOf(() => attest(app))).toBe('draining')
    book.set(bookOfEntries())
  })
})

describe('describe', () => {
  it('tells an operator what a process would be, and holds nothing afterwards', async () => {
    kernel.start(42)
    const description = await attestation.describe(42)
    expect(description).toMatchObject({ pid: 42, uid: 1000, key: 'process:42:4200' })
    expect(description.entries.map(({ name }) => name)).toEqual(['web', 'app'])
    expect(description.selectors).toContain('unix:path:/bin/app')
    expect([attestation.counts.instances, kernel.pidfds.size]).toEqual([0, 0])
  })
})

it('reports kernels without SO_PEERPIDFD as degraded', () => {
  kernel.hasPeerPidfd = false
  expect(health.degraded).toEqual([])
  attest(kernel.start(42))
  expect(health.degraded.map(({ code }) => code)).toEqual(['pidfd_missing'])
  const strict = new Attestation({ clock, book, health, kernel, requirePidfd: true })
  expect(faultOf(() => strict.attest(kernel.connect(kernel.start(43))))).toBe('attestation_failed')
})

it('keeps no trace of 10,000 connections of one living process', () => {
  const app = kernel.start(42)
  for (let round = 0; round < 10_000; round++) {
    const workload = attest(app)
    workload.entries()
    workload.entrySignal(WEB)
    workload.watchEntries(() => {})
    workload.close()
    kernel.sockets.clear()
  }
  expect(attestation.counts).toEqual({ connections: 0, instances: 0 })
  expect(kernel.pidfds.size).toBe(0)
}, 60_000)

it('lets thousands listen to one lease without a warning', () => {
  const warn = vi.spyOn(process, 'emitWarning')
  const workload = attest(kernel.start(42))
  const signals = [
    workload.signal,
    workload.instanceOf(WEB).signal,
    workload.entrySignal(WEB),
    workload.peer.process.signal,
  ]
  for (const signal of signals) {
    for (let index = 0; index < 2_000; index++) signal.addEventListener('abort', () => {})
  }
  expect(warn).not.toHaveBeenCalled()
  warn.mockRestore()
})

describe('a process that is known already', () => {
  it('is read again as far as it may have changed: its cgroup, its program', () => {
    const process = kernel.start(42)
    expect(names(attest(process))).toEqual(['web', 'app'])
    process.cgroup = `0::/docker/${'ab'.repeat(32)}`
    expect(attest(process).selectors).toEqual([])
    process.cgroup = '0::/'
    process.program = '/bin/other'
    kernel.addFile('/bin/other')
    expect(names(attest(process))).toEqual(['web'])
  })

  it('is another one when its pid is: nothing of the first is taken over', () => {
    const first = kernel.start(42)
    const held = attest(first)
    kernel.end(first)
    const second = kernel.start(42, { startTime: '4300', uid: 2000 })
    const other = attest(second)
    expect(other.peer.process.key).not.toBe(held.peer.process.key)
    expect(names(other)).toEqual(['app', 'other'])
    clock.advance(250)
    expect(held.signal.aborted).toBe(true)
  })

  it('is gone when it ends while it is looked at', () => {
    const process = kernel.start(42)
    attest(process)
    kernel.onRead = () => kernel.end(process)
    expect(faultOf(() => attest(process))).toBe('peer_gone')
  })

  it('may have another uid on a new connection: the kernel says so for each', () => {
    const process = kernel.start(42)
    attest(process)
    process.uid = 2000
    expect(names(attest(process))).toEqual(['app', 'other'])
  })
})
