/** `holdfast explain METHOD URL`, and `explain pod` beside it: why a request would be allowed or not, and the smallest change that would allow it. */
import { printable } from '../base/fault.ts'
import type { Explanation } from '../policy/explain.ts'
import { askAsOperator, askAsWorkload, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json, tinted } from './render.ts'

export interface ExplainOptions extends Where, Shown {
  /** Another process; the agent's operator may ask. */
  readonly pid?: number
}

/** Prints the way from facts to rule; the code says whether the request would be allowed. */
export async function explain(
  method: string,
  url: string,
  options: ExplainOptions,
  io: Io,
): Promise<ExitCode> {
  if (method === 'pod') return (await import('./explain-pod.ts')).explainPod(url, options, io)
  const { pid } = options
  const call = { method: 'POST', path: '/v1/explain' } as const
  const found =
    pid === undefined
      ? await askAsWorkload<Explanation>(options, io, { ...call, body: { method, url } })
      : await askAsOperator<Explanation>(options, io, { ...call, body: { pid, method, url } })
  io.out(options.output === 'json' ? json(found) : explanationText(found, pid, io.isColored))
  return found.allowed ? EXIT.ok : EXIT.refused
}

export function explanationText(found: Explanation, pid: number | undefined, isColored: boolean): string {
  const rows = [
    ['request', `${found.method ?? ''} ${found.origin}${found.path}`.trim()],
    ...row('door', found.door),
    ...factRows(found, pid),
    ...(found.notes ?? []).map((note, index): Row => [index === 0 ? 'note' : '', note]),
    ...entryRows(found),
    ...ruleRows(found),
    ['policy', found.policy],
  ] as const
  const width = Math.max(...rows.map(([label]) => label.length))
  const lines = rows.map(
    ([label, text]) => `  ${tinted(label.padEnd(width), 'dim', isColored)}  ${printable(text)}`,
  )
  return `${verdict(found, isColored)}\n${lines.join('\n')}\n`
}

type Row = readonly [string, string]

function verdict({ allowed, observed, message, reason }: Explanation, isColored: boolean): string {
  if (allowed) return `${tinted('allowed', 'green', isColored)}, with a token of this workload`
  const what = `${tinted('refused', 'red', isColored)}: ${printable(message ?? reason ?? '')}`
  return observed ? `${what} (observed only: the request passes)` : what
}

/** One selector a line: they are what an entry is written with. */
function factRows({ selectors }: Explanation, pid: number | undefined): readonly Row[] {
  const whose = pid === undefined ? 'facts' : `facts of ${pid}`
  if (selectors.length === 0) return [[whose, 'no selectors: nothing could be attested']]
  return selectors.map((selector, index): Row => [index === 0 ? whose : '', selector])
}

function entryRows({ entry, nearest_entry: near }: Explanation): readonly Row[] {
  if (entry) {
    const weak = (entry.weaknesses ?? []).map(({ grade, message }): Row => ['', `${grade}: ${message}`])
    return [['entry', `${entry.name} gives ${entry.spiffe_id}  (${entry.place})`], ...weak]
  }
  if (!near) return [['entry', 'none matches these facts']]
  return [
    ['entry', 'none matches these facts'],
    ['nearest', `${near.name} gives ${near.spiffe_id}  (${near.place})`],
    ...near.missing.map((selector, index): Row => [index === 0 ? 'it wants' : '', selector]),
  ]
}

function ruleRows(found: Explanation): readonly Row[] {
  const { target, rule, demands = [], nearest, nearest_entry: near, action, owner, reason } = found
  const { allowed_as: others = [] } = found
  return [
    ...row('target', target),
    ...row('rule', rule),
    ...demands.map((demand, index): Row => [index === 0 ? 'it wants' : '', demand]),
    ...(near ? [] : row('nearest', nearest)),
    ...row('change', action),
    ...row('ask', found.contact ?? (owner && !found.allowed ? `whoever owns ${owner}` : undefined)),
    ...row('reason', reason && `${reason}  https://holdfast.dev/reasons#${reason}`),
    ...others.map((id, index): Row => [index === 0 ? 'allowed as' : '', id]),
  ]
}

function row(label: string, text: string | undefined): readonly Row[] {
  return text === undefined || text === '' ? [] : [[label, text]]
}
