/** How commands write: tables, colours, times for people, JSON. Text from outside comes through `printable`. */
import type { Seconds } from '../base/clock.ts'
import { Fault, printable } from '../base/fault.ts'

export type Tint = 'bold' | 'dim' | 'red' | 'green' | 'yellow'

/** One field of a table. */
export type Cell = string | { readonly text: string; readonly tint: Tint }

const CODES: Readonly<Record<Tint, string>> = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33' }

/** `text` in a colour, where colours are wanted. */
export function tinted(text: string, tint: Tint, isColored: boolean): string {
  return isColored ? `\u001b[${CODES[tint]}m${text}\u001b[0m` : text
}

const GUTTER = '   '

/** Aligned columns under their heads; the last one is not padded. */
export function table(
  heads: readonly string[],
  rows: readonly (readonly Cell[])[],
  isColored: boolean,
): string {
  const all: readonly (readonly Cell[])[] = [
    heads.map((text): Cell => ({ text: text.toUpperCase(), tint: 'dim' })),
    ...rows,
  ]
  const widths = heads.map((_, column) => Math.max(...all.map((row) => textOf(row[column]).length)))
  return all.map((row) => `${line(row, widths, isColored)}\n`).join('')
}

function line(row: readonly Cell[], widths: readonly number[], isColored: boolean): string {
  const fields = row.map((cell, column) => {
    const text = textOf(cell)
    const pad = column === row.length - 1 ? '' : ' '.repeat((widths[column] ?? 0) - text.length)
    return (typeof cell === 'string' ? text : tinted(text, cell.tint, isColored)) + pad
  })
  return fields.join(GUTTER).trimEnd()
}

function textOf(cell: Cell | undefined): string {
  return printable(typeof cell === 'string' ? cell : (cell?.text ?? ''))
}

/** Pretty JSON with a line end. */
export function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}

const MINUTE = 60
const HOUR = 3600
const DAY = 86_400

/** `45s`, `42m`, `3h 10m`, `2d 4h`: the two largest units, the second left out when zero. */
export function span(seconds: Seconds): string {
  const whole = Math.round(seconds)
  if (whole < MINUTE) return `${whole}s`
  if (whole < HOUR) return joined(whole, MINUTE, 'm', 1, 's', whole < 10 * MINUTE)
  if (whole < DAY) return joined(whole, HOUR, 'h', MINUTE, 'm', true)
  return joined(whole, DAY, 'd', HOUR, 'h', true)
}

function joined(whole: number, big: number, unit: string, small: number, part: string, isFine: boolean) {
  const rest = Math.floor((whole % big) / small)
  return `${Math.floor(whole / big)}${unit}${isFine && rest > 0 ? ` ${rest}${part}` : ''}`
}

/** `in 42m`, `5m ago`, `now`. */
export function relative(at: Seconds, now: Seconds): string {
  if (Math.abs(at - now) < 1) return 'now'
  return at > now ? `in ${span(at - now)}` : `${span(now - at)} ago`
}

/** `2026-03-01 12:04:05Z`. */
export function instant(at: Seconds): string {
  return `${new Date(at * 1000).toISOString().slice(0, 19).replace('T', ' ')}Z`
}

/** `1 key`, `2 keys`, `2 entries`. */
export function counted(count: number, noun: string, many = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : many}`
}

const DURATION = /^([1-9][0-9]{0,5})(s|m|h|d)$/
const SIZES: Readonly<Record<string, Seconds>> = { s: 1, m: MINUTE, h: HOUR, d: DAY }

/** Seconds in `90s`, `5m`, `1h`, `7d`; throws usage. */
export function parseSpan(option: string, text: string): Seconds {
  const [, count = '', unit = ''] = DURATION.exec(text) ?? []
  const size = SIZES[unit]
  if (size !== undefined) return Number(count) * size
  throw new Fault(
    'usage',
    `${option} is ${JSON.stringify(text)}, wanted a duration such as 90s, 5m, 1h or 7d`,
    { action: `Write ${option} 5m, for example.` },
  )
}
