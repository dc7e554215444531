/** What a real Envoy says its calls to the agent took: its filters keep the time of each, and its access log writes it. */
import { readFileSync, truncateSync } from 'node:fs'
import { until } from '../support/until.ts'
import type { Signing } from './envoy-proxy.ts'

const FILE = 'envoy.access_loggers.file'
const TYPE = 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog'

/** From the first octet of a message to its answer, in µs. Of a try by `ext_proc` the round trip that signs. */
const TIMES = {
  check: '%FILTER_STATE(envoy.filters.http.ext_authz:FIELD:latency_us)%',
  trip: '%FILTER_STATE(envoy.filters.http.ext_proc:FIELD:request_header_latency_us)%',
  process: '%FILTER_STATE(envoy.filters.http.ext_proc:FIELD:request_header_latency_us)%',
  none: '0',
} as const satisfies Record<Signing, string>

/** An access log with one line a request. Ways that do not sign have it too: it costs Envoy the same in all. */
export function timesLog(path: string, signing: Signing): object {
  const format = { text_format_source: { inline_string: `${TIMES[signing]}\n` } }
  return { name: FILE, typed_config: { '@type': TYPE, path, log_format: format } }
}

/** The times in `path` in ms, once there are `count`, and empties it. Envoy writes twice a second. */
export async function takeTimes(path: string, count: number): Promise<readonly number[]> {
  const lines = await until(`${count} lines of ${path}`, () => {
    const found = readFileSync(path, 'latin1').split('\n').slice(0, -1)
    return found.length >= count ? found : undefined
  })
  truncateSync(path)
  const times = lines.map((line) => Number(line) / 1_000)
  if (times.some(Number.isNaN)) throw new Error(`Envoy has not timed each call: ${lines.slice(0, 3)}`)
  return times
}
