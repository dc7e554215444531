/** A thousand workloads as processes of their own: what they cost the authorization server. */
import type { Measured } from './figures.ts'
import { NO_PYTHON, runPython } from './python.ts'
import { startBench, TARGETS } from './upstreams.ts'

const WORKLOADS = 1_000
const EACH = 2
const TOKENS = WORKLOADS * TARGETS.length

export async function measureWorkloads(): Promise<readonly Measured[]> {
  const name = 'tokens_1000x3_requests'
  const bench = await startBench()
  try {
    const start = performance.now()
    const answered = await runPython('workloads.py', [bench.agent.egress, String(WORKLOADS), ...TARGETS])
    if (answered === undefined) return [{ name, value: undefined, note: NO_PYTHON }]
    const seconds = Math.round((performance.now() - start) / 1000)
    if (Number(answered) !== TOKENS * EACH)
      throw new Error(`${answered} of ${TOKENS * EACH} requests were answered`)
    const { issued, refused } = await bench.tokenRequests()
    if (issued < TOKENS) throw new Error(`${issued} tokens are too few: some are shared`)
    const note = `${refused} more were asked for a newer nonce; ${seconds} s, ${Math.round(bench.agent.residentMb())} MB`
    return [{ name, value: issued, note }]
  } finally {
    await bench.stop()
  }
}
