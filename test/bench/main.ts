/**
 * `npm run bench`: what the shipped build costs, beside its peers. To repeat it: an idle machine, `npm run bench`; `-- --json`
 * prints one JSON object a line (`npm run -s` leaves npm's own lines out), `-- --quick` takes a third of the time, and
 * names of figures after `--` run only what they need. Figures of other uids need root.
 *
 * Costs are CPU microseconds of one process by its own CPU clock; ratios compare rounds that took turns in one run, and
 * the median of the rounds counts. Only starts and the fan-out are times on the wall: trust those of an idle machine.
 */
import { measureDoor } from './door.ts'
import { measureEnvoy } from './envoy.ts'
import { type FigureName, isFigureName, type Measured } from './figures.ts'
import { measureLeases } from './leases.ts'
import { measureNeighbour } from './neighbour.ts'
import { measurePodCrowd } from './pod-crowd.ts'
import { measureAwaited, measurePods, measurePodsByHttps } from './pods.ts'
import { measureProofs } from './proofs.ts'
import { measureRenewals } from './renewals.ts'
import { measureReplays } from './replays.ts'
import { headText, jsonLine, rowText } from './report.ts'
import { measureSds } from './sds.ts'
import { measureStarts } from './starts.ts'
import { measureStreams } from './streams.ts'
import { measureSvids } from './svids.ts'
import { measureTokens } from './tokens.ts'
import { measureVerifier } from './verifier.ts'
import { measureWorkloads } from './workloads.ts'

/** One part of the run: which figures it makes, and how. */
interface Part {
  readonly figures: readonly FigureName[]
  readonly measure: (options: BenchOptions) => Promise<readonly Measured[]>
}

export interface BenchOptions {
  /** Fewer and shorter rounds. */
  readonly quick: boolean
}

const PARTS: readonly Part[] = [
  {
    figures: [
      'proof_stream_ratio',
      'proof_client_cpu_ratio',
      'proof_agent_cpu_ratio',
      'proof_serial_ratio',
      'proof_batch8_ratio',
      'proof_batch32_ratio',
    ],
    measure: measureProofs,
  },
  { figures: ['jwt_warm_us', 'validate_us'], measure: measureTokens },
  {
    figures: ['x509_burst_us', 'x509_burst_rss_mb', 'x509_serial_us', 'fanout_ms'],
    measure: measureSvids,
  },
  { figures: ['start_1_ms', 'start_1000_ms', 'idle_rss_mb'], measure: measureStarts },
  { figures: ['neighbour_p99_ratio'], measure: measureNeighbour },
  { figures: ['egress_added_p50_ms', 'egress_throughput_ratio'], measure: measureDoor },
  { figures: ['egress_1gb_rss_mb'], measure: measureStreams },
  { figures: ['tokens_1000x3_requests'], measure: measureWorkloads },
  { figures: ['tokens_renewal_peak_ratio'], measure: measureRenewals },
  { figures: ['lease_end_close_ms'], measure: measureLeases },
  {
    figures: ['verify_ratio', 'verify_known_ratio', 'middleware_ratio', 'middleware_known_ratio'],
    measure: measureVerifier,
  },
  {
    figures: ['envoy_check_ms', 'envoy_check_us', 'envoy_trip_us', 'envoy_process_ms', 'envoy_process_us'],
    measure: measureEnvoy,
  },
  { figures: ['replay_memory_mb', 'replay_inserts_per_s'], measure: measureReplays },
  {
    figures: ['sds_ack_ms', 'sds_late_ms', 'sds_rotation_rps', 'sds_rotation_lost', 'sds_return_ms'],
    measure: measureSds,
  },
  { figures: ['pods_attest_us', 'pods_220_rss_mb'], measure: measurePodCrowd },
  {
    figures: ['pods_first_svid_p95_ms', 'pods_forced_end_ms', 'pods_upgrade_refused'],
    measure: measurePods,
  },
  {
    figures: ['pods_https_first_svid_p95_ms', 'pods_recovery_ms', 'pods_outage_lost'],
    measure: measurePodsByHttps,
  },
  { figures: ['pods_awaited_first_svid_p95_ms'], measure: measureAwaited },
]

async function main(args: readonly string[]): Promise<void> {
  const [isJson, quick] = [args.includes('--json'), args.includes('--quick')]
  const names = args.filter((arg) => arg !== '--json' && arg !== '--quick')
  const unknown = names.find((name) => !isFigureName(name))
  if (unknown !== undefined) throw new Error(`there is no figure or option ${unknown}`)
  if (!isJson) process.stdout.write(headText())
  const parts = PARTS.filter(
    ({ figures }) => names.length === 0 || figures.some((name) => names.includes(name)),
  )
  for (const { measure } of parts)
    for (const measured of await measure({ quick }))
      process.stdout.write(`${isJson ? jsonLine(measured) : rowText(measured)}\n`)
}

await main(process.argv.slice(2))
