/** Calls that end before their reader is there: each is closed once, and counts no more. */
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

const CALLS = 20
const HEAD = Buffer.concat([
  literal(':method', 'POST'),
  literal(':scheme', 'http'),
  literal(':path', '/holdfast.v1.ProofService/SignProofs'),
  literal('content-type', 'application/grpc'),
  literal('workload.spiffe.io', 'true'),
])

/** What an agent that refuses two-way calls with `fault` counts as open after many of them. */
function openAfter(signal: AbortSignal, admit: () => void): number {
  const wire = new Duplex({ read: () => {}, write: (_chunk, _encoding, done) => done() })
  const calls = new OwnerLimits('calls', 'too_many_calls', CALLS, CALLS)
  const caller = { ...refusedCaller(1, 1, new Fault('no_identity')), workload: () => ({ signal }) as never }
  const grpc = openGrpc(
    { 'holdfast.v1.ProofService': { SignProofs: { exchange: () => ({}) } } },
    {
      clock: new ManualClock(),
      admit,
      onCall: () => {},
      streamsPerConnection: CALLS,
      calls,
      turns: new Turns(),
    },
  )
  grpc.inject(wire, caller)
  const heads = Array.from({ length: CALLS }, (_, at) =>
    frame(FRAME.headers, FLAG.endHeaders, 2 * at + 1, HEAD),
  )
  wire.emit('data', Buffer.concat([opening([]), ...heads]))
  const { all } = calls
  grpc.stop()
  return all
}

describe('two-way calls', () => {
  it('count while they are open', () => {
    expect(openAfter(new AbortController().signal, () => {})).toBe(CALLS)
  })

  it('count no more when their head is refused', () => {
    const refuse = () => {
      throw new Fault('not_ready')
    }
    expect(openAfter(new AbortController().signal, refuse)).toBe(0)
  })

  it('count no more when the lease of their caller is over', () => {
    expect(openAfter(AbortSignal.abort(new Fault('lease_ended')), () => {})).toBe(0)
  })
})
