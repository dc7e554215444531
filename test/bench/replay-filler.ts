/** The process that fills a replay store: proofs of a thousand callers, evenly over the window in which they are good. */
import { MemoryReplayStore } from '../../src/ingress/replay-memory.ts'
import { newJti } from '../../src/proof/jwt.ts'
import { ManualClock } from '../support/clock.ts'
import { cpuMicros, residentMb } from './meter.ts'
import type { Filled } from './replays.ts'

const PROOFS = 1_000_000
const SUBJECTS = 1_000
const WINDOW = 130
const WARM = 50_000

const clock = new ManualClock()
const subjects = Array.from({ length: SUBJECTS }, (_, at) => ({
  subject: `spiffe://example.org/service/${at}`,
  jkt: newJti() + newJti().slice(0, 21),
}))

function open(): MemoryReplayStore {
  const store = new MemoryReplayStore({ clock, keep: WINDOW, limit: PROOFS, share: PROOFS })
  clock.advance(1_000)
  return store
}

function fill(store: MemoryReplayStore, proofs: number): void {
  const perSecond = Math.ceil(proofs / (WINDOW - 1))
  for (let at = 0; at < proofs; at++) {
    if (at % perSecond === perSecond - 1) clock.advance(1_000)
    const { subject, jkt } = subjects[at % SUBJECTS] ?? { subject: '', jkt: '' }
    const use = { scope: 'api', jkt, jti: newJti(), subject, made: clock.now() / 1_000, hasNonce: false }
    if (store.use(use) !== 'fresh') throw new Error('a new proof was refused')
  }
}

// What is compiled on the way is no part of what a proof takes.
fill(open(), WARM)
const store = open()
const [memory, cpu] = [residentMb(process.pid), cpuMicros(process.pid)]
fill(store, PROOFS)
const seconds = (cpuMicros(process.pid) - cpu) / 1e6
if (store.count !== PROOFS) throw new Error(`${store.count} of ${PROOFS} proofs are remembered`)
process.send?.({ mb: residentMb(process.pid) - memory, perSecond: PROOFS / seconds } satisfies Filled)
process.disconnect?.()
