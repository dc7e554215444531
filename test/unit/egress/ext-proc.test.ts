/** Streams of external processing that are given up while their request is being signed, or say nothing. */
import { expect, it } from 'vitest'
import type { Fault } from '../../../src/base/fault.ts'
import { Live } from '../../../src/base/live.ts'
import { openExtProc } from '../../../src/egress/ext-proc.ts'
import type { Releases, SignedSending } from '../../../src/egress/release.ts'
import type { RuleBook } from '../../../src/policy/book.ts'
import type { Caller } from '../../../src/serve/caller.ts'
import type { Dialog, Hear } from '../../../src/serve/dialog.ts'
import type { Audit } from '../../../src/telemetry/audit.ts'
import { openMetrics } from '../../../src/telemetry/metrics.ts'
import { bookOfEntries } from '../../support/book.ts'
import { ManualClock } from '../../support/clock.ts'
import { headOf, linesOf } from '../../support/envoy-stream.ts'

interface Opened {
  readonly clock: ManualClock
  readonly hear: Hear
  /** What it was ended with, each time. */
  readonly ends: (Fault | undefined)[]
  close(): void
  drain(): void
}

/** An open stream whose request is signed when `signing` resolves. */
function openStream(signing: Promise<SignedSending>): Opened {
  const clock = new ManualClock()
  const releases = { sign: () => signing } as unknown as Releases
  const book = new Live<RuleBook>({ ...bookOfEntries(), targetsFor: () => [] })
  const unused = { audit: {} as Audit, metrics: openMetrics() }
  const timeouts = { headTimeout: 5_000, answerTimeout: 60_000 }
  const side = openExtProc({ ...unused, book, clock, load: async () => releases, ...timeouts })
  const { Process } = side.handlers
  const { dialog: open } = Process as { dialog: (caller: Caller, dialog: Dialog) => Hear }
  const closing: (() => void)[] = []
  const ends: (Fault | undefined)[] = []
  const hear = open({ workload: () => ({}) } as unknown as Caller, {
    say: () => {},
    end: (fault) => void ends.push(fault),
    onClose: (then) => void closing.push(then),
    told: () => undefined,
  })
  const close = () => {
    for (const then of closing) then()
  }
  return { clock, hear, ends, close, drain: side.drain }
}

const HEAD = { request_headers: headOf(linesOf('https://orders.example.test/v1/items')) }

it.each([
  ['is kept until it is answered', false, 1],
  ['is not kept once it was given up', true, 0],
])('a stream whose request was signed %s', async (_what, isGivenUp, ended) => {
  let sign = (_signed: SignedSending): void => {}
  const signing = new Promise<SignedSending>((resolve) => {
    sign = resolve
  })
  const { clock, close, drain, ends, hear } = openStream(signing)
  const heard = hear(HEAD)
  if (isGivenUp) close()
  sign({ headers: { dpop: 'proof' }, isTransaction: false, hear: () => false })
  await heard
  drain()
  expect(ends).toHaveLength(ended)
  clock.advance(60_000)
  expect(ends).toHaveLength(2 * ended)
})

it('a stream that says nothing ends with deadline, one that is being signed does not', () => {
  const never = new Promise<SignedSending>(() => {})
  const silent = openStream(never)
  silent.clock.advance(4_999)
  expect(silent.ends).toEqual([])
  silent.clock.advance(1)
  expect(silent.ends.map((fault) => fault?.reason)).toEqual(['deadline'])
  const asking = openStream(never)
  void asking.hear(HEAD)
  asking.clock.advance(60_000)
  expect(asking.ends).toEqual([])
})
