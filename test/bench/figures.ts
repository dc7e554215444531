/** The figures: what each means, its unit and its target. The names are stable; whoever keeps a history goes by them. */

/** A bound that a figure has to keep. */
interface Figure {
  readonly unit: 'ratio' | 'us' | 'ms' | 'mb' | 'count' | 'per_s'
  readonly bound: 'at_least' | 'at_most'
  readonly target: number
  readonly says: string
}

// Newer Node has a larger floor: an empty script takes 44 MB there and 41 on 20.
const IDLE_MB = Number(process.versions.node.split('.')[0]) > 20 ? 92 : 75

const atLeast = (target: number, says: string, unit: Figure['unit'] = 'ratio'): Figure => ({
  unit,
  bound: 'at_least',
  target,
  says,
})

const atMost = (unit: Figure['unit'], target: number, says: string): Figure => ({
  unit,
  bound: 'at_most',
  target,
  says,
})

export const FIGURES = {
  proof_stream_ratio: atLeast(0.75, 'DPoP proofs a second by the SDK, 16 in flight, of npm dpop in process'),
  proof_client_cpu_ratio: atMost('ratio', 0.2, "the application's CPU a proof by the SDK, of npm dpop's"),
  proof_agent_cpu_ratio: atMost('ratio', 2.2, "the agent's CPU a proof, of a raw crypto.sign"),
  proof_serial_ratio: atMost(
    'ratio',
    0.65,
    'p50 of one proof at a time, of an OpenSSH ssh-agent ECDSA signature',
  ),
  proof_batch8_ratio: atLeast(0.5, 'proofs a second in unary calls of 8, 4 calls in flight, of npm dpop'),
  proof_batch32_ratio: atLeast(0.7, 'proofs a second in unary calls of 32, 4 calls in flight, of npm dpop'),
  jwt_warm_us: atMost('us', 90, 'agent CPU of a FetchJWTSVID that is cached, 8 in flight'),
  validate_us: atMost('us', 200, 'agent CPU of a ValidateJWTSVID, 8 in flight'),
  x509_serial_us: atMost('us', 1200, 'agent CPU of connect, first FetchX509SVID and close, one at a time'),
  x509_burst_us: atMost('us', 400, 'the same of 2,000 connections at once, all held open'),
  x509_burst_rss_mb: atMost('mb', 185, 'resident memory of the agent with those 2,000 open'),
  fanout_ms: atMost('ms', 300, 'from the change of an entry to the last of 2,000 streams that has it'),
  start_1_ms: atMost('ms', 250, 'from spawn to the first X.509-SVID, 1 entry'),
  start_1000_ms: atMost('ms', 600, 'from spawn to the first X.509-SVID, 1,000 entries'),
  idle_rss_mb: atMost('mb', IDLE_MB, 'resident memory of an idle agent after its first SVID'),
  neighbour_p99_ratio: atMost(
    'ratio',
    2,
    'p99 of a call while another uid opens 1,000 silent connections, of calm',
  ),
  egress_added_p50_ms: atMost(
    'ms',
    0.6,
    'p50 of a request through the egress door less p50 of the same by npm dpop and fetch in process',
  ),
  egress_throughput_ratio: atLeast(
    0.7,
    'requests a second through the egress door, 16 in flight, of the same',
  ),
  egress_1gb_rss_mb: atMost('mb', 50, 'growth of the agent while 1 GB goes up and 1 GB comes down'),
  tokens_1000x3_requests: atMost(
    'count',
    3_000,
    'requests that brought a token, of 1,000 processes that ask each of 3 targets twice at once',
  ),
  tokens_renewal_peak_ratio: atMost(
    'ratio',
    0.05,
    'renewals in the worst second, of those of 3,000 tokens that were had at once',
  ),
  lease_end_close_ms: atMost(
    'ms',
    1_000,
    'from the end of a process to that of its connections on both sides of the door, the worst of all',
  ),
  verify_ratio: atMost(
    'ratio',
    1.6,
    'CPU of verifying a DPoP request, ES256 token and proof, of two raw crypto.verify',
  ),
  verify_known_ratio: atMost('ratio', 1.6, 'the same with a token that was verified before, of one'),
  middleware_ratio: atMost(
    'ratio',
    1.6,
    'CPU of a request through `holdfast/verify` in process, of two raw crypto.verify',
  ),
  middleware_known_ratio: atMost('ratio', 1.6, 'the same with a token that was verified before, of one'),
  envoy_check_ms: atMost(
    'ms',
    0.6,
    'p50 of a Check that signs, from question to answer by the clock of a real Envoy, at 1,000 requests a second',
  ),
  envoy_check_us: atMost('us', 250, 'agent CPU of the same'),
  envoy_trip_us: atMost(
    'us',
    250,
    'agent CPU of a try by ext_proc whose answer goes unheard: one round trip, its end included',
  ),
  envoy_process_ms: atMost('ms', 0.6, 'p50 of the round trip by ext_proc that signs, as for Check'),
  envoy_process_us: atMost(
    'us',
    500,
    'agent CPU of a try by ext_proc with two round trips, since the head of the answer is looked at too',
  ),
  replay_memory_mb: atMost('mb', 200, 'memory of 1,000,000 proofs that are remembered'),
  pods_first_svid_p95_ms: atMost(
    'ms',
    1_000,
    'from the start of a process in a new pod to its first X.509-SVID, 20 pods at once, on a real kubelet',
  ),
  pods_https_first_svid_p95_ms: atMost(
    'ms',
    1_000,
    'the same, of an agent that asks the kubelet over HTTPS, as those without a Pods API want it',
  ),
  pods_awaited_first_svid_p95_ms: atMost(
    'ms',
    1_000,
    'the same with unlisted_containers: awaited, by which nobody waits for the kubelet to list a container as running',
  ),
  pods_attest_us: atMost(
    'us',
    1_000,
    'agent CPU of connect, attestation, first X.509-SVID and close of a new process in a known container, less what bare grpc-js takes for such a visit',
  ),
  pods_220_rss_mb: atMost(
    'mb',
    130,
    'the most memory of an agent with a stream of each container of 110 pods, while the list of its kubelet changes every second',
  ),
  pods_forced_end_ms: atMost(
    'ms',
    2_000,
    'from the end of the list of the kubelet to that of the calls, streams and connections of a pod deleted by force, the worst',
  ),
  pods_recovery_ms: atMost(
    'ms',
    5_000,
    'after an outage of the API server, from when the kubelet lists a container that began in it to its first identity, the worst',
  ),
  pods_outage_lost: atMost('count', 0, 'requests of a known pod through egress that fail in such an outage'),
  pods_upgrade_refused: atMost(
    'count',
    0,
    'Workload API calls of 10 pods that fail while a new agent takes the place of the old one',
  ),
  replay_inserts_per_s: atLeast(300_000, 'proofs remembered a second of CPU, up to 1,000,000', 'per_s'),
  sds_ack_ms: atMost('ms', 15, 'p50 from a push of a secret to the word of a real Envoy that it has it'),
  sds_late_ms: atMost(
    'ms',
    1_000,
    'from the load of an entry to the first 200 between Envoys that waited for it',
  ),
  sds_rotation_rps: atLeast(2_000, 'requests a second between two Envoys during 8 rotations', 'per_s'),
  sds_rotation_lost: atMost('count', 0, 'of these, other than 200, and handshakes more than connections'),
  sds_return_ms: atMost(
    'ms',
    2_000,
    "from a proxy's own next try after a restart of the agent to its secret, the worst of 200",
  ),
} satisfies Record<string, Figure>

export type FigureName = keyof typeof FIGURES

export function isFigureName(name: string): name is FigureName {
  return name in FIGURES
}

/** What was found for a figure; `value` is absent when this machine cannot measure it, and `note` says why. */
export interface Measured {
  readonly name: FigureName
  readonly value: number | undefined
  /** Ratios: what stands above and below the line, in `of`. */
  readonly own?: number
  readonly peer?: number
  readonly of?: string
  /** What the same call costs on bare grpc-js in the same run, in the figure's unit: how fast this machine is. */
  readonly floor?: number
  readonly note?: string
}

/** Whether the target is kept; undefined where nothing was measured. */
export function isMet({ name, value }: Measured): boolean | undefined {
  if (value === undefined) return undefined
  const { bound, target } = FIGURES[name]
  return bound === 'at_least' ? value >= target : value <= target
}
