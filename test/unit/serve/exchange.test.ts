/** A stream of questions that come at once: their answers, in order and in turns. */
import { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { refusedCaller } from '../../../src/serve/caller.ts'
import { openGrpc } from '../../../src/serve/grpc.ts'
import { OwnerLimits } from '../../../src/serve/limits.ts'
import { Turns } from '../../../src/serve/turns.ts'
import { ManualClock } from '../../support/clock.ts'
import { FLAG, FRAME, frame, opening } from '../../support/h2.ts'
import { literal } from '../../support/h2-fuzz.ts'

const QUESTIONS = 100
const IN_A_TURN = 32
const HEAD = Buffer.concat([
  literal(':method', 'POST'),
  literal(':scheme', 'http'),
  literal(':path', '/holdfast.v1.ProofService/SignProofs'),
  literal('content-type', 'application/grpc'),
  literal('workload.spiffe.io', 'true'),
])
const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

/** A caller that asks `QUESTIONS` at once; how often each turn of the event loop answered. */
async function ask(answer: (count: number) => void | Promise<void>): Promise<readonly number[]> {
  let count = 0
  const wire = new Duplex({ read: () => {}, write: (_chunk, _encoding, done) => done() })
  const caller = { ...refusedCaller(1, 1, new Fault('no_identity')), workload: () => workload }
  const workload = { signal: new AbortController().signal } as never
  const grpc = openGrpc(
    {
      'holdfast.v1.ProofService': {
        SignProofs: {
          exchange: () => {
            count += 1
            const wait = answer(count)
            return wait ? wait.then(() => ({})) : {}
          },
        },
      },
    },
    {
      clock: new ManualClock(),
      admit: () => {},
      onCall: () => {},
      streamsPerConnection: 1,
      calls: new OwnerLimits('calls', 'too_many_calls', 9, 9),
      turns: new Turns(),
    },
  )
  grpc.inject(wire, caller)
  const empty = Buffer.alloc(5)
  const questions = Buffer.concat(Array.from({ length: QUESTIONS }, () => empty))
  wire.push(
    Buffer.concat([
      opening([]),
      frame(FRAME.headers, FLAG.endHeaders, 1, HEAD),
      frame(FRAME.data, FLAG.endStream, 1, questions),
    ]),
  )
  const sizes: number[] = []
  for (let turn = 0; turn < 20; turn += 1) {
    const before = count
    await nextTurn()
    sizes.push(count - before)
  }
  grpc.stop()
  return sizes
}

describe('threats row 26: questions on one stream', () => {
  it('are answered over several turns, all of them', async () => {
    const sizes = await ask(() => {})
    expect(Math.max(...sizes)).toBeLessThanOrEqual(IN_A_TURN)
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(QUESTIONS)
  })

  it('whose answers take time are taken one at a time, all of them', async () => {
    let [open, most] = [0, 0]
    const sizes = await ask(async () => {
      open += 1
      most = Math.max(most, open)
      await Promise.resolve()
      open -= 1
    })
    expect(most).toBe(1)
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(QUESTIONS)
  })

  it('end with the first that is refused, in its turn or later', async () => {
    for (const bad of [1, IN_A_TURN + 5]) {
      const sizes = await ask((count) => {
        if (count === bad) throw new Fault('invalid_request')
      })
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(bad)
    }
  })
})
