/** A stream of external processing that is given up while its request is being signed: nothing is kept for its answer. */
import { expect, it } from 'vitest'
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

it.each([
  ['is kept until it is answered', false, 1],
  ['is not kept once it was given up', true, 0],
])('a stream whose request was signed %s', async (_what, isGivenUp, ended) => {
  const clock = new ManualClock()
  let sign = (_signed: SignedSending): void => {}
  const signing = new Promise<SignedSending>((resolve) => {
    sign = resolve
  })
  const releases = { sign: () => signing } as unknown as Releases
  const book = new Live<RuleBook>({ ...bookOfEntries(), targetsFor: () => [] })
  const unused = { audit: {} as Audit, metrics: openMetrics() }
  const timeouts = { headTimeout: 5_000, answerTimeout: 60_000 }
  const side = openExtProc({ ...unused, book, clock, load: async () => releases, ...timeouts })
  const { Process } = side.handlers
  const { dialog: open } = Process as { dialog: (caller: Caller, dialog: Dialog) => Hear }

  const closing: (() => void)[] = []
  let ends = 0
  const dialog: Dialog = {
    say: () => {},
    end: () => {
      ends += 1
    },
    onClose: (then) => void closing.push(then),
    told: () => undefined,
  }
  const heard = open(
    { workload: () => ({}) } as unknown as Caller,
    dialog,
  )({
    request_headers: headOf(linesOf('https://orders.example.test/v1/items')),
  })
  if (isGivenUp) for (const close of closing) close()
  sign({ headers: { dpop: 'proof' }, isTransaction: false, hear: () => false })
  await heard
  side.drain()
  expect(ends).toBe(ended)
  clock.advance(60_000)
  expect(ends).toBe(2 * ended)
})
