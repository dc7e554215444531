/** Figures as text for people and as JSON Lines for machines. */
import { cpus } from 'node:os'
import { FIGURES, isMet, type Measured } from './figures.ts'

const UNITS = { ratio: '×', us: ' µs', ms: ' ms', mb: ' MB', count: '', per_s: '/s' } as const

/** The machine and the columns. */
export function headText(): string {
  const [first] = cpus()
  const machine = `${first?.model.trim() ?? 'unknown CPU'}, ${cpus().length} cores, Node ${process.versions.node}`
  return `${machine}\n\n${row('figure', 'value', 'target', '', 'meaning')}\n`
}

/** One line of the table. */
export function rowText(measured: Measured): string {
  const { unit, bound, target, says } = FIGURES[measured.name]
  const value = measured.value === undefined ? 'none' : `${rounded(measured.value)}${UNITS[unit]}`
  const limit = `${bound === 'at_least' ? '≥' : '≤'} ${target}${UNITS[unit]}`
  const verdict = { true: 'met', false: 'missed', undefined: 'skipped' }[String(isMet(measured))] ?? ''
  const { own, peer, of, floor, note } = measured
  const beside = own !== undefined && peer !== undefined ? ` (${rounded(own)} to ${rounded(peer)} ${of})` : ''
  const bare = floor === undefined ? '' : ` (bare grpc-js ${rounded(floor)})`
  return row(measured.name, value, limit, verdict, `${says}${beside}${bare}${note ? `; ${note}` : ''}`)
}

function row(name: string, value: string, target: string, verdict: string, says: string): string {
  return `${name.padEnd(23)} ${value.padStart(9)}  ${target.padEnd(11)} ${verdict.padEnd(8)} ${says}`
}

/** One line of JSON. */
export function jsonLine(measured: Measured): string {
  const { name, value, own, peer, of, floor, note } = measured
  const { unit, bound, target } = FIGURES[name]
  const found = value === undefined ? null : rounded(value)
  const met = isMet(measured) ?? null
  const beside = own === undefined || peer === undefined ? {} : { own: rounded(own), peer: rounded(peer), of }
  return JSON.stringify({
    name,
    value: found,
    unit,
    target,
    bound,
    met,
    ...beside,
    floor: floor && rounded(floor),
    note,
  })
}

/** Three digits that mean something. */
function rounded(value: number): number {
  return value >= 100 ? Math.round(value) : Number(value.toPrecision(3))
}
