/**
 * The report as one HTML file that needs nothing else: no script, no address, all text escaped, and a content security
 * policy that allows its own style by hash and nothing more. Good on screen and on paper.
 */
import { createHash } from 'node:crypto'
import type { Change } from './changes.ts'
import { escaped } from './escape.ts'
import { pictureOf } from './report-picture.ts'
import { STYLE } from './report-style.ts'
import { isPassed, type ProbeReport } from './run.ts'
import { countOf, type Result, type Verdict } from './verdict.ts'

const POLICY = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'`

export const VERDICT_WORDS: Readonly<Record<Verdict, string>> = {
  held: 'refused',
  broken: 'TAKEN',
  unclear: 'not clear',
  untried: 'not tried',
  uncovered: 'not covered',
  accepted: 'accepted risk',
}

export function htmlReport(report: ProbeReport, changes: readonly Change[]): string {
  const title = `Replay lab: ${escaped(report.url)}`
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${escaped(POLICY)}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta name="referrer" content="no-referrer">',
    `<title>${title}</title>`,
    `<style>${STYLE}</style>`,
    '</head>',
    '<body>',
    '<main>',
    headText(report),
    `<figure>${pictureOf(report)}<figcaption>The way of a request, and whether a thief is refused at each place.</figcaption></figure>`,
    ...todoText(report.results),
    ...changesText(changes),
    tableText(report.results),
    '</main>',
    '</body>',
    '</html>',
    '',
  ].join('\n')
}

function headText(report: ProbeReport): string {
  const { url, method, run, began, ended, requests, inconclusive } = report
  const passed = isPassed(report)
  const word = wordFor(report, passed)
  const time = new Date(began * 1000).toISOString().slice(0, 16).replace('T', ' ')
  return [
    '<header>',
    `<p class="kind">Holdfast replay lab</p>`,
    `<h1 class="${passed ? 'good' : 'bad'}">${escaped(word)}</h1>`,
    `<p class="url">${escaped(`${method} ${url}`)}</p>`,
    ...(inconclusive === undefined ? [] : [`<p class="why">${escaped(inconclusive)}</p>`]),
    `<p class="facts">${escaped(`${time} UTC · ${requests} requests in ${ended - began} s · run ${run}`)}</p>`,
    '</header>',
  ].join('\n')
}

/** A thief who was let in comes first, whatever else cannot be told. */
function wordFor({ inconclusive, results }: ProbeReport, passed: boolean): string {
  const taken = countOf(results, 'broken')
  const untried = countOf(results, 'untried', 'uncovered')
  if (taken > 0) return `A thief was let in: ${taken} of ${results.length - untried} cases`
  if (inconclusive !== undefined) return 'Nothing can be concluded'
  if (!passed) return 'Some cases are not clear'
  return untried > 0 ? `A thief was refused; ${untried} cases were not tried` : 'A thief was refused'
}

/** What is to be done, by who has to do it. */
function todoText(results: readonly Result[]): readonly string[] {
  const open = results.filter(({ verdict }) => verdict === 'broken' || verdict === 'unclear')
  const owners = [...new Set(open.map(({ owner }) => owner))]
  if (owners.length === 0) return []
  return [
    '<section class="todo"><h2>Who must act</h2>',
    ...owners.map((owner) => {
      const cures = new Map<string, string[]>()
      for (const { id, cure, owner: whose } of open)
        if (whose === owner) cures.set(cure, [...(cures.get(cure) ?? []), id])
      const items = [...cures].map(
        ([cure, ids]) => `<li>${escaped(cure)} <span class="ids">${escaped(ids.join(', '))}</span></li>`,
      )
      return `<h3>${escaped(owner)}</h3><ul>${items.join('')}</ul>`
    }),
    '</section>',
  ]
}

function changesText(changes: readonly Change[]): readonly string[] {
  if (changes.length === 0) return []
  const items = changes.map(
    ({ id, before, now }) => `<li><b>${escaped(id)}</b>: ${escaped(before)} → ${escaped(now)}</li>`,
  )
  return [`<section><h2>Since the baseline</h2><ul>${items.join('')}</ul></section>`]
}

function tableText(results: readonly Result[]): string {
  const rows = results.map(rowText).join('\n')
  const heads = ['Case', 'Sent', 'Seen', 'Verdict', 'Owner'].map((head) => `<th scope="col">${head}</th>`)
  return `<section><h2>All cases</h2><table><thead><tr>${heads.join('')}</tr></thead><tbody>\n${rows}\n</tbody></table></section>`
}

function rowText(result: Result): string {
  const { id, sends, seen, verdict, owner } = result
  const isOpen = verdict === 'broken' || verdict === 'unclear' || verdict === 'accepted'
  const cells = [
    `<th scope="row">${escaped(id)}</th>`,
    `<td data-is="sent">${escaped(sends)}${noteText(result)}</td>`,
    `<td data-is="seen">${escaped(seen)}<br><small>${escaped(sourceOf(result))}</small></td>`,
    `<td><span class="mark ${verdict}">${escaped(wordOf(result))}</span></td>`,
    `<td data-is="owner">${isOpen ? escaped(owner) : ''}</td>`,
  ]
  return `<tr class="${verdict}">${cells.join('')}</tr>`
}

function sourceOf({ evidence, expected, verifier }: Result): string {
  if (evidence === 'seen')
    return verifier === undefined ? 'seen in the audit' : `seen in the audit of ${verifier}`
  return evidence === 'inferred' && expected === 'refused' ? 'inferred from the answer' : ''
}

/** Nothing was sent for what is only seen: there is nobody to refuse or to take. */
function wordOf({ expected, verdict }: Result): string {
  if (expected === 'kept' && verdict === 'held') return 'kept'
  if (expected === 'kept' && verdict === 'broken') return 'AT RISK'
  return VERDICT_WORDS[verdict]
}

function noteText({ note, acceptance }: Result): string {
  const accepted = acceptance
    ? `accepted by ${acceptance.approver} until ${acceptance.until}: ${acceptance.reason}`
    : undefined
  return [note, accepted]
    .flatMap((text) => (text === undefined ? [] : [`<br><small>${escaped(text)}</small>`]))
    .join('')
}
