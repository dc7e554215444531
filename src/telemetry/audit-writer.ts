/**
 * Takes records of one turn, chains them and writes them at once. A line that was chained is written before any
 * later one, byte for byte, however often the sink fails in between; what finds no room while it fails is lost, and
 * a record in the chain says how many those were.
 *
 * CPU a record on a file: 6.5 µs in batches of 16, 9 alone (text 2.4, chain 1.8 with SHA-256, write 2.5).
 */
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { REASONS } from '../base/reasons.ts'
import type { Audit, AuditFacts, AuditOptions, AuditRecord } from './audit.ts'
import { type Anchor, Chain } from './audit-chain.ts'
import { Folds } from './audit-fold.ts'
import { type ChainFacts, membersOf } from './audit-record.ts'
import { codeOf, type Sink } from './audit-sink.ts'

const QUEUE_LIMIT = 10_000
const BATCH = 512
const COMMIT_AFTER: Millis = 50
/** Calls that come thicker share their writes. */
const ALONE: Millis = 0.5
const RETRY_AFTER: Millis = 1_000
const CHECKPOINT_RECORDS = 1_000
const CHECKPOINT_AFTER: Millis = 10_000

interface Waiting {
  readonly ts: string
  readonly members: string
}

type Listener = (record: AuditRecord) => void

/**
 * An Audit over one sink. `#chain` is there once the sink has been read; `#failure` names why the last write failed,
 * and each commit and a timer try again; after `close` nothing is taken.
 */
export class AuditWriter implements Audit {
  readonly #sink: Sink
  readonly #options: AuditOptions
  readonly #listeners = new Set<Listener>()
  readonly #folds: Folds
  #chain: Chain | undefined
  /** Records without a place in the chain yet. */
  #waiting: Waiting[] = []
  /** Chained lines, and how much of them is written. */
  #unsent: Buffer | undefined
  #sent = 0
  /** Told once `#unsent` is written. */
  #anchors: Anchor[] = []
  #lines: string[] = []
  #lineCount = 0
  #failure: string | undefined
  #lost = 0
  #isClosed = false
  #sinceCheckpoint = 0
  #isCheckpointDue = false
  #isRotationDue = true
  #settling: Promise<void> | undefined
  #settledAt: Millis = Number.NEGATIVE_INFINITY
  #cancelFlush: (() => void) | undefined
  #cancelCheckpoint: (() => void) | undefined
  #second = -1
  #prefix = ''

  constructor(sink: Sink, options: AuditOptions) {
    this.#sink = sink
    this.#options = options
    const onFolded = (count: number) => options.metrics.count('holdfast_audit_folded_total', {}, count)
    this.#folds = new Folds(options.clock, (members) => this.#add(members), onFolded)
  }

  /** Throws what openAudit throws. */
  open(): void {
    try {
      this.#openChain()
    } catch (error) {
      if (error instanceof Fault) throw error
    }
    this.commit()
  }

  append(facts: AuditFacts): void {
    const members = membersOf(facts)
    if (facts.allowed || this.#isClosed || !this.#folds.take(facts, members)) this.#add(members)
  }

  #add(members: string): void {
    if (this.#isClosed || this.#waiting.length >= QUEUE_LIMIT) this.#lost++
    else this.#waiting.push({ ts: this.#now(), members })
    if (this.#waiting.length === BATCH) this.#flush()
    this.#flushAfter(COMMIT_AFTER)
  }

  commit(): void {
    this.#flush()
    this.check()
  }

  /**
   * 8 calls in one turn: one write of 8 records (3 µs each) where each for itself costs 9. At the end of the turn, not of
   * the tick: with process.nextTick a signature costs 15 % more, since each then has a write of its own. A call that
   * comes alone is not kept waiting for others: a turn costs 12 µs.
   */
  settle(): Promise<void> {
    const now = this.#options.clock.monotonic()
    const isAlone = !this.#settling && now - this.#settledAt > ALONE
    this.#settledAt = now
    if (isAlone) return this.#settleNow()
    this.#settling ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#settling = undefined
        resolve(this.#settleNow())
      })
    })
    return this.#settling
  }

  async #settleNow(): Promise<void> {
    this.commit()
  }

  check(): void {
    const failure = this.#isClosed ? 'closed' : this.#failure
    if (failure && this.#options.onFailure === 'refuse')
      throw new Fault('audit_unavailable', `the audit log cannot be written (${failure})`)
  }

  watch(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  close(): void {
    if (this.#isClosed) return
    this.#folds.flush()
    this.#isCheckpointDue = true
    this.#flush()
    this.#isClosed = true
    this.#cancelFlush?.()
    this.#cancelCheckpoint?.()
    this.#sink.close()
  }

  /** Brings everything that waits into the sink, or keeps it for the next try. Never throws. */
  #flush(): void {
    if (this.#isClosed) return
    try {
      const chain = this.#openChain()
      this.#send()
      if (this.#isCheckpointDue) this.#sink.follow()
      this.#encode(chain)
      this.#send()
      if (this.#failure) this.#recover(chain, this.#failure)
      if (this.#isRotationDue && this.#sink.isFull()) this.#rotate(chain)
    } catch (error) {
      this.#fail(error)
    }
    this.#tell()
  }

  /** The first record of a boot names the last line of what is there, and owns up to a torn one. */
  #openChain(): Chain {
    if (this.#chain) return this.#chain
    const { end, isOpen, torn } = this.#sink.open()
    const chain = new Chain(this.#options.boot, end)
    this.#chain = chain
    const line = this.#own(chain, {
      event: 'audit.open',
      allowed: true,
      ...(torn ? { torn: torn.bytes, torn_hash: torn.hash } : {}),
    })
    this.#queue(isOpen ? `\n${line}` : line)
    return chain
  }

  /** Gives each waiting record its place in the chain. */
  #encode(chain: Chain): void {
    let text = ''
    for (const { ts, members } of this.#waiting) {
      const line = this.#line(chain, ts, members)
      if (this.#listeners.size > 0) this.#lines.push(line)
      text += line
      if (this.#sinceCheckpoint >= CHECKPOINT_RECORDS) text += this.#checkpoint(chain)
    }
    this.#waiting = []
    if (this.#isCheckpointDue && this.#sinceCheckpoint > 0) text += this.#checkpoint(chain)
    this.#isCheckpointDue = false
    this.#queue(text)
  }

  #line(chain: Chain, ts: string, members: string): string {
    const line = chain.next(ts, members)
    this.#lineCount++
    this.#sinceCheckpoint++
    this.#cancelCheckpoint ??= this.#options.clock.after(CHECKPOINT_AFTER, () => {
      this.#isCheckpointDue = true
      this.#isRotationDue = true
      this.#flush()
    })
    return `${line}\n`
  }

  #own(chain: Chain, facts: ChainFacts): string {
    return this.#line(chain, this.#now(), membersOf(facts))
  }

  #checkpoint(chain: Chain): string {
    this.#sinceCheckpoint = 0
    this.#cancelCheckpoint?.()
    this.#cancelCheckpoint = undefined
    if (!this.#sink.isKept) return ''
    try {
      const { line, anchor } = chain.checkpoint(this.#now(), this.#options.signer)
      this.#anchors.push(anchor)
      this.#options.health.recover('audit_checkpoint')
      return `${line}\n`
    } catch {
      this.#options.health.degrade({
        code: 'audit_checkpoint',
        message: 'the key of the audit checkpoints does not sign',
        action: 'Restart the agent; until then the end of the audit log is not anchored.',
      })
      return ''
    }
  }

  /** Only after `#send` has returned: what is unsent stays first. */
  #queue(text: string): void {
    if (text !== '') this.#unsent = Buffer.from(text)
  }

  #send(): void {
    if (!this.#unsent) return
    while (this.#sent < this.#unsent.length) this.#sent += this.#sink.write(this.#unsent, this.#sent)
    this.#unsent = undefined
    this.#sent = 0
  }

  /** Says elsewhere what is now in the sink; before that an anchor would accuse a log that is only late. */
  #tell(): void {
    if (this.#unsent) return
    const { log, metrics } = this.#options
    const [anchors, lines] = [this.#anchors, this.#lines]
    if (this.#lineCount > 0) metrics.count('holdfast_audit_records_total', {}, this.#lineCount)
    this.#lineCount = 0
    if (anchors.length > 0) this.#anchors = []
    if (lines.length > 0) this.#lines = []
    for (const { seq, hash, signature, publicKey } of anchors)
      log.info('audit checkpoint', { audit_seq: seq, audit_hash: hash, signature, public_key: publicKey })
    for (const line of lines) this.#show(line)
  }

  #show(line: string): void {
    const { boot: _boot, prev: _prev, ...record } = JSON.parse(line) as AuditRecord & Record<string, unknown>
    for (const listener of [...this.#listeners]) {
      try {
        listener(record)
      } catch {
        // Whoever watches must not decide whether anything is signed.
        this.#listeners.delete(listener)
      }
    }
  }

  /** With `audit.rotate` in the old file the head of the log may go; without it a missing head is a cut. */
  #rotate(chain: Chain): void {
    const first = this.#rotating(() => this.#sink.firstKept())
    if (first !== undefined) {
      this.#queue(this.#own(chain, { event: 'audit.rotate', allowed: true, first }))
      this.#send()
    }
    if (this.#isRotationDue) this.#rotating(() => this.#sink.rotate())
  }

  /** A file that cannot be rotated is still written; the next checkpoint tries again. */
  #rotating<T>(work: () => T): T | undefined {
    try {
      const result = work()
      this.#options.health.recover('audit_rotation')
      return result
    } catch (error) {
      this.#isRotationDue = false
      this.#options.health.degrade({
        code: 'audit_rotation',
        message: `the audit log is over its size and cannot be rotated (${codeOf(error)})`,
        action: 'Let the agent rename and create files in the directory of the audit log.',
      })
      return undefined
    }
  }

  #fail(error: unknown): void {
    const { onFailure, log, metrics, health } = this.#options
    const isNew = this.#failure === undefined
    this.#failure = error instanceof Fault ? error.reason : codeOf(error)
    metrics.count('holdfast_audit_failures_total')
    this.#flushAfter(RETRY_AFTER)
    if (!isNew) return
    const message = `the audit log cannot be written (${this.#failure})`
    const action = REASONS.audit_unavailable.cure
    log.error(message, { reason: 'audit_unavailable', action })
    health.degrade({ code: onFailure === 'refuse' ? 'audit_unavailable' : 'audit_gap', message, action })
  }

  /** The sink takes lines again: the chain says that it did not, and how many records there was no room for. */
  #recover(chain: Chain, detail: string): void {
    const lost = this.#lost
    this.#lost = 0
    this.#queue(this.#own(chain, { event: 'audit.gap', allowed: true, lost, detail }))
    this.#send()
    const { log, health } = this.#options
    this.#failure = undefined
    log.warn('the audit log can be written again', { count: lost })
    health.recover('audit_unavailable')
    health.recover('audit_gap')
    if (lost === 0) return
    health.degrade({
      code: 'audit_gap',
      message: `${lost} audit records were lost while the audit log could not be written`,
      action: 'Find the audit.gap record; a restart of the agent ends this message.',
    })
  }

  #flushAfter(delay: Millis): void {
    if (this.#isClosed) return
    this.#cancelFlush ??= this.#options.clock.after(delay, () => {
      this.#cancelFlush = undefined
      this.#flush()
    })
  }

  #now(): string {
    const millis = this.#options.clock.now()
    const second = Math.floor(millis / 1_000)
    if (second !== this.#second) {
      this.#second = second
      this.#prefix = new Date(millis).toISOString().slice(0, -'123Z'.length)
    }
    return `${this.#prefix}${String(millis - second * 1_000).padStart(3, '0')}Z`
  }
}
