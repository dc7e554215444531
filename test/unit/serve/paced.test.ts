/** A connection that is heard in turns: how much at a time, and both ends together. */
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { type Paced, paced } from '../../../src/serve/paced.ts'
import { Turns } from '../../../src/serve/turns.ts'

const KIB = 1024
const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

/** What Node reads at once, and the side that its HTTP server sees. */
interface Rig extends Paced {
  readonly far: Duplex
  readonly heard: Buffer[]
  readonly written: Buffer[]
}

/** `each` stands for the server: what it does with a piece. */
function rig(turns: Turns, each: (piece: Buffer, all: Rig) => void = () => {}): Rig {
  const written: Buffer[] = []
  const far = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      written.push(chunk)
      done()
    },
  })
  const all = { ...paced(far as Socket, turns.of('uid 1')), far, heard: [] as Buffer[], written }
  all.near.on('data', (piece: Buffer) => {
    all.heard.push(piece)
    each(piece, all)
  })
  return all
}

const sizes = ({ heard }: Rig) => heard.map(({ length }) => length)

describe('threats row 26: a connection with much to say', () => {
  it('is heard as far as the turn goes, then in later ones, all of it in order', async () => {
    const turns = new Turns()
    const one = rig(turns, () => turns.spend('uid 1', 64))
    const said = Buffer.alloc(20 * KIB, 'abcdefg')
    one.far.push(said)
    const counts: number[] = []
    for (let turn = 0; turn < 10; turn += 1) {
      const before = one.heard.length
      await nextTurn()
      counts.push(one.heard.length - before)
    }
    expect(Math.max(...counts)).toBeLessThanOrEqual(5)
    expect(Math.max(...sizes(one))).toBe(KIB)
    expect(Buffer.concat(one.heard)).toEqual(said)
    expect(one.far.isPaused()).toBe(false)
  })

  it('and a body that was announced is heard in one piece, and what follows it is not', async () => {
    let isFirst = true
    const one = rig(new Turns(), (_piece, all) => {
      if (isFirst) all.expect(30 * KIB)
      isFirst = false
    })
    one.far.push(Buffer.alloc(40 * KIB))
    for (let turn = 0; turn < 10; turn += 1) await nextTurn()
    const [body = 0, ...others] = sizes(one).filter((size) => size > KIB)
    expect(body).toBeGreaterThan(25 * KIB)
    expect(body).toBeLessThan(30 * KIB)
    expect(others).toEqual([])
    expect(Buffer.concat(one.heard)).toHaveLength(40 * KIB)
  })

  it('that the server does not take is not read any more', async () => {
    const one = rig(new Turns(), (_piece, all) => all.near.pause())
    one.far.push(Buffer.alloc(20 * KIB))
    await nextTurn()
    expect(one.far.isPaused()).toBe(true)
    expect(one.near.readableLength).toBeLessThanOrEqual(2 * KIB)
    one.near.removeAllListeners('data').on('data', (piece: Buffer) => one.heard.push(piece))
    one.near.resume()
    for (let turn = 0; turn < 10; turn += 1) await nextTurn()
    expect(Buffer.concat(one.heard)).toHaveLength(20 * KIB)
  })
})

describe('both ends of a connection', () => {
  it('see what the other writes, and its end', async () => {
    const one = rig(new Turns())
    one.near.cork()
    one.near.write('a')
    one.near.write('b')
    one.near.uncork()
    one.near.end('c')
    await nextTurn()
    expect(Buffer.concat(one.written).toString()).toBe('abc')
    expect(one.far.writableEnded).toBe(true)
  })

  it('are heard to the last before they end', async () => {
    const one = rig(new Turns())
    const ended = new Promise((resolve) => one.near.once('end', resolve))
    one.far.push(Buffer.alloc(10 * KIB))
    one.far.push(null)
    await ended
    expect(Buffer.concat(one.heard)).toHaveLength(10 * KIB)
  })

  it.each(['near', 'far'] as const)('are gone when the %s one is', async (which) => {
    const one = rig(new Turns())
    one[which].destroy()
    await nextTurn()
    expect([one.near.destroyed, one.far.destroyed]).toEqual([true, true])
  })
})
