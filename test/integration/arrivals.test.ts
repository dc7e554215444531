/** Connections as they arrive: all are read into one buffer, and nobody sees another's octets. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Arrival, listen } from '../../src/serve/arrivals.ts'

let dir: string
let server: Server
let arrived: Arrival[]
let onArrival: () => void

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-arrivals-'))
  arrived = []
  onArrival = () => {}
  server = await listen({ path: join(dir, 's') }, 's', (arrival) => {
    arrived.push(arrival)
    onArrival()
  })
})

afterEach(() => {
  server.close()
  rmSync(dir, { recursive: true, force: true })
})

/** A client, and how the server knows of it. */
async function arrive(): Promise<{ readonly far: Socket; readonly arrival: Arrival }> {
  const came = new Promise<void>((resolve) => {
    onArrival = resolve
  })
  const far = connect(join(dir, 's'))
  await Promise.all([once(far, 'connect'), came])
  return { far, arrival: arrived.at(-1) as Arrival }
}

/** A client, and the socket that the server has of it. */
async function pair(isBulk = false): Promise<{ readonly far: Socket; readonly near: Socket }> {
  const { far, arrival } = await arrive()
  return { far, near: arrival.open(isBulk) }
}

describe('a connection', () => {
  it('keeps what was read of it while others are read', async () => {
    const conversations = await Promise.all(
      [await pair(), await pair(), await pair(), await pair()].map(async ({ far, near }) => {
        const [said, heard] = [randomBytes(300_000), [] as Buffer[]]
        near.on('data', (chunk: Buffer) => heard.push(chunk)).resume()
        far.end(said)
        await once(near, 'close')
        return { said, heard }
      }),
    )
    for (const { heard, said } of conversations) expect(Buffer.concat(heard).equals(said)).toBe(true)
  })

  it.each([
    ['of little', false],
    ['of much', true],
  ])('%s is read in order by who looks first, puts back, pauses and goes on', async (_what, isBulk) => {
    const { far, near } = await pair(isBulk)
    const said = randomBytes(1_000_000)
    far.end(said)
    await once(near, 'readable')
    near.unshift(near.read() as Buffer)
    const chunks: Buffer[] = []
    near.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      if (chunks.length % 3 !== 0) return
      near.pause()
      setImmediate(() => near.resume())
    })
    await once(near, 'close')
    expect(Buffer.concat(chunks).equals(said)).toBe(true)
  })

  it('holds no more than one read while it is paused', async () => {
    const { far, near } = await pair()
    far.write(randomBytes(1_000_000))
    await once(near, 'readable')
    for (let turns = 0; turns < 20; turns += 1) await turn()
    expect(near.readableLength).toBeLessThanOrEqual(64 * 1024)
    expect(far.writableLength).toBeGreaterThan(0)
    far.destroy()
  })

  it('ends with the one that was refused', async () => {
    const { far, arrival } = await arrive()
    arrival.refuse()
    await once(far.resume(), 'close')
    expect(far.destroyed).toBe(true)
  })
})
