/** Counters and gauges for `/metrics`; labels hold reasons and kinds, never identities. */

export type CounterName =
  | 'holdfast_requests_total'
  | 'holdfast_proofs_total'
  | 'holdfast_refusals_total'
  | 'holdfast_connections_total'
  | 'holdfast_svids_issued_total'
  | 'holdfast_reloads_total'
  | 'holdfast_audit_records_total'
  | 'holdfast_audit_failures_total'
  | 'holdfast_revocations_total'

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
