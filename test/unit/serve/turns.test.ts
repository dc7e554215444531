/** Who begins when in a turn of the event loop. */
import { describe, expect, it } from 'vitest'
import { Turns } from '../../../src/serve/turns.ts'

const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

/** Begins `count` calls of `owner`; each adds its number to `begun`. */
function begin(turns: Turns, owner: string, count: number, begun: string[]): void {
  for (let at = 0; at < count; at += 1) {
    const wait = turns.enter(owner)
    if (wait) void wait.then(() => begun.push(`${owner} ${at}`))
    else begun.push(`${owner} ${at}`)
  }
}

describe('threats row 26: calls that come at once', () => {
  it('of one owner begin over several turns, in their order, and those of another at once', async () => {
    const turns = new Turns()
    const begun: string[] = []
    begin(turns, 'uid 1', 100, begun)
    expect(begun).toHaveLength(32)
    begin(turns, 'uid 2', 1, begun)
    expect(begun.at(-1)).toBe('uid 2 0')
    const sizes: number[] = []
    while (begun.length < 101) {
      const before = begun.length
      await nextTurn()
      sizes.push(begun.length - before)
    }
    expect(Math.max(...sizes)).toBeLessThanOrEqual(32)
    expect(begun.filter((one) => one.startsWith('uid 1'))).toEqual(
      Array.from({ length: 100 }, (_none, at) => `uid 1 ${at}`),
    )
  })

  it('come behind what waits, and begin at once when nothing does', async () => {
    const turns = new Turns()
    const begun: string[] = []
    begin(turns, 'uid 1', 40, begun)
    await nextTurn()
    await nextTurn()
    expect(begun).toHaveLength(40)
    expect(turns.enter('uid 1')).toBeUndefined()
  })

  it('of many owners are no more together than of three, and each has its share', async () => {
    const turns = new Turns()
    const begun: string[] = []
    const owners = Array.from({ length: 32 }, (_none, at) => `uid ${at}`)
    for (const owner of owners) begin(turns, owner, 100, begun)
    await nextTurn()
    const before = begun.length
    await nextTurn()
    const now = begun.slice(before)
    expect(now.length).toBeLessThanOrEqual(96)
    for (const owner of owners) expect(now.filter((one) => one.startsWith(`${owner} `)).length).toBe(2)
  })

  it('of one owner are as many as ever once the others have nothing to say', async () => {
    const turns = new Turns()
    const begun: string[] = []
    for (let at = 0; at < 32; at += 1) begin(turns, `uid ${at}`, 3, begun)
    for (let at = 0; at < 4; at += 1) await nextTurn()
    expect(begun).toHaveLength(96)
    begin(turns, 'uid 1', 200, begun)
    await nextTurn()
    await nextTurn()
    const before = begun.length
    await nextTurn()
    expect(begun.length - before).toBe(32)
  })
})
