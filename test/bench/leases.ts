/** How long connections outlive the process that they are of. */
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { NO_PYTHON, runPython } from './python.ts'
import { startBench } from './upstreams.ts'

const NS_PER_MS = 1e6

export async function measureLeases({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const name = 'lease_end_close_ms'
  const bench = await startBench()
  try {
    const times: number[] = []
    for (let round = 0; round < (quick ? 3 : 10); round++) {
      const closed = bench.nextClosed()
      closed.catch(() => {})
      const said = await runPython('lease.py', [bench.agent.egress, 'orders'])
      if (said === undefined) return [{ name, value: undefined, note: NO_PYTHON }]
      const [ended = 0n, gone = 0n] = said.split(' ').map(BigInt)
      times.push(...[gone, await closed].map((time) => Number(time - ended) / NS_PER_MS))
    }
    return [{ name, value: Math.max(...times) }]
  } finally {
    await bench.stop()
  }
}
