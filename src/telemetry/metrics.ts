/** Counters and gauges for `/metrics`; labels hold reasons and kinds, never identities. */
import type { Exposition } from './exposition.ts'

export type CounterName =
  | 'holdfast_requests_total'
  | 'holdfast_proofs_total'
  | 'holdfast_refusals_total'
  | 'holdfast_connections_total'
  | 'holdfast_svids_issued_total'
  | 'holdfast_sds_total'
  | 'holdfast_egress_requests_total'
  | 'holdfast_tokens_total'
  | 'holdfast_reloads_total'
  | 'holdfast_verified_total'
  | 'holdfast_binding_lost_total'
  | 'holdfast_replay_local_total'
  | 'holdfast_events_total'
  | 'holdfast_audit_records_total'
  | 'holdfast_audit_failures_total'
  | 'holdfast_audit_folded_total'
  | 'holdfast_revocations_total'
  | 'holdfast_series_dropped_total'

/** Label values are from closed sets: RPC names, proof kinds, reasons. */
export type Labels = Readonly<Record<string, string>>

/** Counting is cheap; the exposition library loads at the first scrape. */
export interface Metrics {
  count(name: CounterName, labels?: Labels, by?: number): void
  /** Read at each scrape. */
  gauge(name: string, help: string, read: () => number): void
  /** The Prometheus text format. */
  render(): Promise<string>
}

const HELP: Readonly<Record<CounterName, string>> = {
  holdfast_requests_total: 'Requests answered, by kind and outcome.',
  holdfast_proofs_total: 'Proofs made, by kind.',
  holdfast_refusals_total: 'Requests refused, by reason.',
  holdfast_connections_total: 'Connections accepted or refused, by door.',
  holdfast_svids_issued_total: 'SVIDs issued, by kind.',
  holdfast_sds_total: 'Messages with secrets for proxies: sent, taken (ack) and refused by them (nack).',
  holdfast_tokens_total: 'Access tokens, by what was done and reason.',
  holdfast_egress_requests_total: 'Requests of the egress door, by class of status and reason.',
  holdfast_reloads_total: 'Reloads of configuration, policy, CA and bundle files, by result.',
  holdfast_verified_total:
    'Incoming requests that services asked about, by reason: ok, that of the refusal, or observed, with the reason that it would have been refused for without `mode: observe`.',
  holdfast_binding_lost_total:
    'Requests with a bound token and no proof, by the hop that carried proofs until then.',
  holdfast_replay_local_total: 'Proofs that the memory of this node alone decided.',
  holdfast_events_total: 'Security events of transmitters, by outcome.',
  holdfast_audit_records_total: 'Audit records written.',
  holdfast_audit_failures_total: 'Writes of the audit log that failed.',
  holdfast_audit_folded_total: 'Repeated refusals that audit records count together.',
  holdfast_revocations_total: 'Revocations carried out, by kind.',
  holdfast_series_dropped_total:
    'Counts without their labels: the label was no word, or there were too many series.',
}

const SERIES_LIMIT = 1_000
// The values of closed sets are words. A SPIFFE ID, path, pid or audience is none.
const WORD = /^[A-Za-z][A-Za-z0-9_.]{0,39}$/
// A jti may look like a word; no word of ours of this length mixes cases and digits.
const RANDOM = /^(?=.*\d)(?=.*[a-z])(?=.*[A-Z]).{20,}$/

/** One counter with one set of labels. */
export interface Series {
  readonly name: CounterName
  readonly labels: Labels
  value: number
}

/** A value that is read at each scrape. */
export interface Reading {
  readonly name: string
  readonly help: string
  readonly read: () => number
}

/** Empty metrics; they live as long as the agent. */
export function openMetrics(): Metrics {
  const series = new Map<string, Series>()
  const readings = new Map<string, Reading>()
  let exposition: Promise<Exposition> | undefined
  const count = (name: CounterName, labels: Labels = {}, by = 1): void => {
    const key = keyOf(name, labels)
    const known = series.get(key)
    if (known) known.value += by
    else if (key === name || (series.size < SERIES_LIMIT && isBounded(labels)))
      series.set(key, { name, labels: { ...labels }, value: by })
    else {
      count(name, {}, by)
      count('holdfast_series_dropped_total')
    }
  }
  return {
    count,
    gauge: (name, help, read) => {
      readings.set(name, { name, help, read })
    },
    render: async () => {
      exposition ??= import('./exposition.ts').then(({ openExposition }) => openExposition(HELP))
      return (await exposition).render([...series.values()], [...readings.values()])
    },
  }
}

function keyOf(name: CounterName, labels: Labels): string {
  let key: string = name
  for (const label in labels) key += ` ${label}=${labels[label]}`
  return key
}

function isBounded(labels: Labels): boolean {
  return Object.entries(labels).every(
    ([name, value]) => WORD.test(name) && WORD.test(value) && !RANDOM.test(value),
  )
}
