/** Big bodies through the egress door: what passes is not kept. */

import { once } from 'node:events'
import { request } from 'node:http'
import type { Measured } from './figures.ts'
import { type Bench, BIG, startBench } from './upstreams.ts'

const CHUNK = Buffer.alloc(64 * 1024, 'x')
// An agent that has been in use: its young heap has grown to what requests take.
const WARM = 1_600
const IN_FLIGHT = 16
const LOOK_EVERY = 20
const WITHIN = 180_000
const MB = 1e6

export async function measureStreams(): Promise<readonly Measured[]> {
  const name = 'egress_1gb_rss_mb'
  const bench = await startBench()
  try {
    for (let made = 0; made < WARM; made += IN_FLIGHT)
      await Promise.all(Array.from({ length: IN_FLIGHT }, () => send(bench, 'GET', '/v1/items')))
    const before = bench.agent.residentMb()
    let most = before
    const look = setInterval(() => {
      most = Math.max(most, bench.agent.residentMb())
    }, LOOK_EVERY)
    const start = performance.now()
    try {
      const up = JSON.parse(await send(bench, 'POST', '/v1/sink')) as { readonly received: number }
      const half = performance.now()
      await send(bench, 'GET', '/v1/source')
      const down = performance.now() - half
      if (up.received !== BIG) throw new Error(`${up.received} of ${BIG} bytes arrived`)
      const speed = (ms: number) => Math.round(BIG / MB / (ms / 1000))
      const note = `${speed(half - start)} MB/s up, ${speed(down)} MB/s down`
      return [{ name, value: most - before, note }]
    } finally {
      clearInterval(look)
    }
  } finally {
    await bench.stop()
  }
}

/** Sends BIG bytes with a POST; resolves to a short body, and only counts a long one. */
async function send({ agent }: Bench, method: 'GET' | 'POST', path: string): Promise<string> {
  const headers = { Host: 'orders', ...(method === 'POST' ? { 'Content-Length': BIG } : {}) }
  const signal = AbortSignal.timeout(WITHIN)
  const outgoing = request({ socketPath: agent.egress, method, path, headers, signal })
  const answered = once(outgoing, 'response')
  // What fails while the body goes up is thrown where the answer is waited for.
  answered.catch(() => {})
  if (method === 'POST')
    for (let left = BIG; left > 0; left -= CHUNK.length)
      if (!outgoing.write(CHUNK.subarray(0, Math.min(left, CHUNK.length))))
        await Promise.race([once(outgoing, 'drain'), answered])
  outgoing.end()
  const [response] = await answered
  let [received, text] = [0, '']
  for await (const chunk of response) {
    received += chunk.length
    if (received < CHUNK.length) text += chunk
  }
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}: ${text}`)
  if (path === '/v1/source' && received !== BIG) throw new Error(`${received} of ${BIG} bytes came`)
  return text
}
