/** The items of a large message, and those who ask meanwhile. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { refusedCaller } from '../../../src/serve/caller.ts'
import { Turns } from '../../../src/serve/turns.ts'
import { inTurns } from '../../../src/sign/in-turns.ts'

const callerOf = (turns: Turns, owner: string) => ({
  ...refusedCaller(1, 1, new Fault('no_identity'), owner),
  enter: () => turns.enter(owner),
})
const items = (count: number) => Array.from({ length: count }, (_none, at) => at)
const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

describe('threats row 26: the items of one message', () => {
  it('are done at once where the turn allows', () => {
    const made = inTurns(callerOf(new Turns(), 'uid 1'), items(8), () => (item) => item * 2)
    expect(made).toEqual([0, 2, 4, 6, 8, 10, 12, 14])
  })

  it('are done over several turns, in their order, and those of another begin at once', async () => {
    const turns = new Turns()
    const done: number[] = []
    const made = inTurns(callerOf(turns, 'uid 1'), items(100), () => (item) => done.push(item))
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
    const all = items(16).map(() => inTurns(callerOf(turns, 'uid 1'), items(64), () => () => (done += 1)))
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
    const made = inTurns(callerOf(turns, 'uid 1'), items(64), () => {
      if (isOver) throw new Fault('lease_ended')
      return () => (done += 1)
    })
    isOver = true
    await expect(made).rejects.toMatchObject({ reason: 'lease_ended' })
    expect(done).toBe(33)
  })
})
