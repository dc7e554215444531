/** The Prometheus text of what was counted, through prom-client; loaded at the first scrape (68 ms, 12 MB). */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { REASONS, type Reason } from '../base/reasons.ts'
import type { CounterName, Reading, Series } from './metrics.ts'

/** Counters, gauges and the process's own metrics as text. */
export interface Exposition {
  render(series: readonly Series[], readings: readonly Reading[]): Promise<string>
}

// The library's default samples the event loop each 10 ms for the rest of the agent's life.
const LAG_SAMPLES_MS = 100

/** From here on the process is measured: memory, CPU, descriptors, event loop. */
export function openExposition(help: Readonly<Record<CounterName, string>>): Exposition {
  const process = new Registry()
  collectDefaultMetrics({ register: process, eventLoopMonitoringPrecision: LAG_SAMPLES_MS })
  return {
    render: async (series, readings) => {
      const registry = new Registry()
      for (const [name, text] of Object.entries(help))
        addCounter(registry, name, text, series.filter((one) => one.name === name).map(withOwner))
      for (const reading of readings) addGauge(registry, reading)
      return `${await registry.metrics()}${await process.metrics()}`
    },
  }
}

/** Who has to act follows from the reason: alerts go to them without a table of reasons of their own. */
function withOwner(one: Series): Series {
  const { reason = '' } = one.labels
  if (!Object.hasOwn(REASONS, reason)) return one
  return { ...one, labels: { ...one.labels, owner: REASONS[reason as Reason].owner } }
}

function addCounter(registry: Registry, name: string, help: string, series: readonly Series[]): void {
  const labelNames = [...new Set(series.flatMap(({ labels }) => Object.keys(labels)))]
  const counter = new Counter({ name, help, labelNames, registers: [registry] })
  for (const { labels, value } of series) counter.inc(labels, value)
}

/** A gauge that throws is left out: the other metrics are worth more than an error page. */
function addGauge(registry: Registry, { name, help, read }: Reading): void {
  try {
    const value = read()
    new Gauge({ name, help, registers: [registry] }).set(value)
  } catch {
    // Absence shows in the scrape.
  }
}
