/** Who waits at a server, and how many. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { Gate } from '../../../src/egress/gate.ts'

const never = () => new Promise<never>(() => {})
const reasonOf = (run: Promise<unknown>) =>
  run.then(
    () => 'ok',
    (caught) => Fault.from(caught).reason,
  )

describe('those who wait at a server', () => {
  it('are not all of one identity', async () => {
    const gate = new Gate(1)
    const ending = new AbortController()
    const ask = { urgency: 'caller', signal: ending.signal } as const
    void gate.run({ ...ask, who: 'web' }, never)
    const waiting = Array.from({ length: 10_000 }, () => reasonOf(gate.run({ ...ask, who: 'web' }, never)))
    expect(await reasonOf(gate.run({ ...ask, who: 'web' }, never))).toBe('overloaded')
    const other = reasonOf(gate.run({ ...ask, who: 'db' }, never))
    ending.abort(new Fault('draining'))
    expect(new Set(await Promise.all([...waiting, other]))).toEqual(new Set(['draining']))
  })

  it('have their place again when they have left or been let in', async () => {
    const gate = new Gate(2)
    for (let at = 0; at < 20_001; at += 1) {
      const ending = new AbortController()
      const run = gate.run({ urgency: 'caller', signal: ending.signal, who: 'web' }, async () => 'done')
      if (at % 2 === 0) ending.abort(new Fault('canceled'))
      await reasonOf(run)
    }
    expect(gate.isIdle).toBe(true)
    const { signal } = new AbortController()
    expect(await gate.run({ urgency: 'caller', signal, who: 'web' }, async () => 'in')).toBe('in')
  })
})
