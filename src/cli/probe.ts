/** `holdfast probe URL`: the replay lab. Sends what a thief would to the hosts it is told, and says who has to act. */
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { readRisks, withRisks } from '../probe/accepted.ts'
import { type Change, changesSince, readBaseline, verdictsOf } from '../probe/changes.ts'
import { htmlReport } from '../probe/report-html.ts'
import { junitReport } from '../probe/report-junit.ts'
import { isPassed, type ProbeReport, type RunOptions, runProbe } from '../probe/run.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { openAudits } from './probe-audit.ts'
import { parsePlace, parsePlaces } from './probe-places.ts'
import { probeText } from './probe-text.ts'
import { openWallet, type WalletOptions } from './probe-wallet.ts'
import { json, parseSpan } from './render.ts'
import { readTextFile } from './text-file.ts'

export interface ProbeOptions extends WalletOptions {
  readonly output?: 'text' | 'json'
  readonly head?: boolean
  /** `NAME=URL` each. */
  readonly hop?: readonly string[]
  readonly behind?: string
  /** Audits of verifiers, `[NAME=]PATH[#ROUTE]` each: files and admin sockets. */
  readonly audit?: readonly string[]
  /** The same, of services that the probed one calls. */
  readonly downstreamAudit?: readonly string[]
  readonly nonceLife: string
  readonly accept?: string
  readonly baseline?: string
  readonly every?: string
  readonly late: string
  readonly quick?: boolean
  readonly maxTtl: string
  readonly patience: string
  readonly rate: number
  readonly ca?: string
  readonly coversQuery?: boolean
  readonly junit?: string
  readonly html?: string
}

const RATE_LIMIT = 100

/**
 * The code is 1 when a thief was let in or a case is not clear, 2 when nothing can be concluded. With `--every` the
 * worst of all runs.
 */
export async function probe(url: string, options: ProbeOptions, io: Io): Promise<ExitCode> {
  const every = options.every === undefined ? undefined : parseSpan('--every', options.every)
  const stop = every === undefined ? undefined : io.interrupted()
  let before =
    options.baseline === undefined ? undefined : readBaseline(options.baseline, contentOf(options.baseline))
  let worst: ExitCode = EXIT.ok
  for (;;) {
    const report = await runOnce(url, options, io)
    const changes = before ? changesSince(before, report.results) : []
    show(report, changes, options, io)
    worst = worseOf(worst, codeOf(report))
    if (every === undefined || stop?.aborted) return worst
    // The next run is compared with this one, unless a baseline was named.
    if (options.baseline === undefined) before = verdictsOf(report.results)
    await io.sleep(every * 1000)
    if (stop?.aborted) return worst
  }
}

async function runOnce(url: string, options: ProbeOptions, io: Io): Promise<ProbeReport> {
  const ending = new AbortController()
  try {
    return await runWith(url, options, io, {
      records: await openAudits(options.audit, io, ending.signal),
      downstream: await openAudits(options.downstreamAudit, io, ending.signal),
    })
  } finally {
    ending.abort()
  }
}

async function runWith(
  url: string,
  options: ProbeOptions,
  io: Io,
  audits: Pick<RunOptions, 'records' | 'downstream'>,
): Promise<ProbeReport> {
  const { rate, quick, ca, accept } = options
  if (rate > RATE_LIMIT) throw new Fault('usage', `--rate is ${rate}, wanted at most ${RATE_LIMIT}`)
  const front = parsePlace(url)
  const span = (option: string, text: string): Seconds => (quick ? 0 : parseSpan(option, text))
  const risks = accept === undefined ? [] : await readRisks(accept, contentOf(accept))
  const run: RunOptions = {
    run: randomUUID(),
    method: options.head ? 'HEAD' : 'GET',
    htu: front.htu,
    url: front.url,
    inner: parsePlaces(options.hop ?? [], options.behind),
    wallet: await openWallet(options, io),
    roots: ca === undefined ? undefined : contentOf(ca),
    rate,
    late: span('--late', options.late),
    maxTtl: parseSpan('--max-ttl', options.maxTtl),
    patience: span('--patience', options.patience),
    coversQuery: options.coversQuery ?? false,
    nonceLife: parseSpan('--nonce-life', options.nonceLife),
    ...audits,
    now: () => io.now(),
    sleep: (ms) => io.sleep(ms),
    ...(io.isTerminal && options.output !== 'json'
      ? { onCase: (id: string) => io.err(`\r\u001b[K${id}`) }
      : {}),
  }
  const report = await runProbe(run)
  if (run.onCase) io.err('\r\u001b[K')
  return { ...report, results: withRisks(report.results, risks, io.now()) }
}

function show(report: ProbeReport, changes: readonly Change[], options: ProbeOptions, io: Io): void {
  const { output, junit, html, every } = options
  if (junit !== undefined) write(junit, junitReport(report))
  if (html !== undefined) write(html, htmlReport(report, changes))
  if (output !== 'json') {
    io.out(probeText(report, changes, io.isColored))
    return
  }
  const value = { passed: isPassed(report), ...report, changes }
  // One line a run, so that a reader can tell runs apart.
  io.out(every === undefined ? json(value) : `${JSON.stringify(value)}\n`)
}

function codeOf(report: ProbeReport): ExitCode {
  if (isPassed(report)) return EXIT.ok
  const isOpen = report.results.some(({ verdict }) => verdict === 'broken')
  return report.inconclusive !== undefined && !isOpen ? EXIT.usage : EXIT.failed
}

/** A thief who was let in once outweighs a run that could not tell. */
function worseOf(one: ExitCode, other: ExitCode): ExitCode {
  if (one === EXIT.failed || other === EXIT.failed) return EXIT.failed
  return one === EXIT.ok ? other : one
}

const FILE_LIMIT = 4 * 1024 * 1024

function contentOf(file: string): string {
  return readTextFile(file, FILE_LIMIT, 'Name a file that this user may read.')
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text)
  } catch (error) {
    throw new Fault('usage', `${file}: cannot be written`, {
      action: 'Name a file in a directory that this user may write to.',
      cause: error,
    })
  }
}
