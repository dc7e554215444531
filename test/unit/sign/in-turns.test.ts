/** The items of a large message, and those who ask meanwhile. */
import { describe, expect, it } from 'vitest'
import type { Workload } from '../../../src/attest/workload.ts'
import { Fault } from '../../../src/base/fault.ts'
import { refusedCaller } from '../../../src/serve/caller.ts'
import { Turns } from '../../../src/serve/turns.ts'
import { inTurns } from '../../../src/sign/in-turns.ts'

/** Checks nothing, but for what a test makes of it. */
const partsOf = (turns: Turns, owner: string, workload = () => ({}) as Workload) => ({
  caller: {
    ...refusedCaller(1, 1, new Fault('no_identity'), owner),
    workload,
    enter: () => turns.enter(owner),
  },
  audit: { check: () => {} },
})
const items = (count: number) => Array.from({ length: count }, (_none, at) => at)
const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

describe('threats row 26: the items of one message', () => {
  it('are done at once where the turn allows', () => {
    const made = inTurns(partsOf(new Turns(), 'uid 1'), items(8), (_workload, item) => item * 2)
    expect(made).toEqual([0, 2, 4, 6, 8, 10, 12, 14])
  })

  it('are done over several turns, in their order, and those of another begin at once', async () => {
    const turns = new Turns()
    const done: number[] = []
    const made = inTurns(partsOf(turns, 'uid 1'), items(100), (_workload, item) => done.push(item))
    // The first came with the message, which is counted by who reads it.
    expect(done).toHaveLength(33)
    expect(turns.enter('uid 2')).toBeUndefined()
    const sizes: number[] = []
    while (done.length < 100) {
      const before = done.length
      await nextTurn()
      sizes.push(done.length - before)
    }
    expect(Math.max(...sizes)).toBeLessThanOrEqual(32)
    expect(await made).toEqual(items(100).map((at) => at + 1))
    expect(done).toEqual(items(100))
  })

  it('of several messages share the turn', async () => {
    const turns = new Turns()
    let done = 0
    const all = items(16).map(() => inTurns(partsOf(turns, 'uid 1'), items(64), () => (done += 1)))
    // Each message's first is counted by who reads it.
    expect(done).toBe(32 + 16)
    for (let turn = 0; turn < 3; turn += 1) {
      const before = done
      await nextTurn()
      expect(done - before).toBeLessThanOrEqual(32)
    }
    await Promise.all(all)
    expect(done).toBe(16 * 64)
  })

  it('are given up when the caller has ended meanwhile', async () => {
    const turns = new Turns()
    let [isOver, done] = [false, 0]
    const workload = () => {
      if (isOver) throw new Fault('lease_ended')
      return {} as Workload
    }
    const made = inTurns(partsOf(turns, 'uid 1', workload), items(64), () => (done += 1))
    isOver = true
    await expect(made).rejects.toMatchObject({ reason: 'lease_ended' })
    expect(done).toBe(33)
  })
})
