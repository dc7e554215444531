/** What waits ends with its lease, its caller or its time; what does not wait pays for none of it. */
import { describe, expect, it, vi } from 'vitest'
import type { Instance } from '../../../src/attest/workload.ts'
import { Fault } from '../../../src/base/fault.ts'
import { whileLeased } from '../../../src/egress/wait.ts'
import { ManualClock } from '../../support/clock.ts'

function rig() {
  const clock = new ManualClock()
  const after = vi.spyOn(clock, 'after')
  const [workload, instance, caller] = [new AbortController(), new AbortController(), new AbortController()]
  const gone = vi.fn(() => caller.signal)
  const ofInstance: Instance = { key: 'process:1:1', signal: instance.signal }
  const options = { clock, timeout: 1_000, workload: { signal: workload.signal }, instance: ofInstance, gone }
  return { after, caller, clock, gone, instance, options, workload }
}

const never = () => new Promise<string>(() => {})
const reasonOf = (made: unknown) => Promise.resolve(made).then(String, (caught) => Fault.from(caught).reason)

describe('a call under a lease', () => {
  it('that waits for nothing has its answer at once, without a timer and a signal', () => {
    const { after, gone, options } = rig()
    expect(whileLeased(options, () => 'made')).toBe('made')
    expect(after).not.toHaveBeenCalled()
    expect(gone).not.toHaveBeenCalled()
  })

  it('that is over is refused before anything is made', () => {
    for (const which of ['workload', 'instance'] as const) {
      const one = rig()
      one[which].abort(new Fault('revoked'))
      const make = vi.fn()
      expect(() => whileLeased(one.options, make)).toThrow(expect.objectContaining({ reason: 'revoked' }))
      expect(make).not.toHaveBeenCalled()
    }
  })

  it.each([
    ['workload', 'lease_ended'],
    ['instance', 'lease_ended'],
    ['caller', 'canceled'],
  ] as const)('that waits ends with its %s, and so does what it waits for', async (which, reason) => {
    const one = rig()
    let signal: AbortSignal | undefined
    const made = reasonOf(
      whileLeased(one.options, (wait) => {
        signal = wait.signal
        return never()
      }),
    )
    one[which].abort()
    expect(await made).toBe(reason)
    expect(signal?.reason).toMatchObject({ reason })
  })

  it('ends when its time is over, though it never asked for the signal', async () => {
    const { clock, options } = rig()
    const made = reasonOf(whileLeased(options, never))
    clock.advance(1_000)
    expect(await made).toBe('deadline')
  })

  it('hears of nothing once it has its answer, or has failed', async () => {
    const { caller, clock, options } = rig()
    const signals: AbortSignal[] = []
    const take = (wait: { readonly signal: AbortSignal }) => void signals.push(wait.signal)
    await whileLeased(options, async (wait) => take(wait))
    expect(() =>
      whileLeased(options, (wait) => {
        take(wait)
        throw new Fault('bug')
      }),
    ).toThrow()
    caller.abort()
    clock.advance(5_000)
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, false])
  })
})
