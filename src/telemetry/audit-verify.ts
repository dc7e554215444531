/**
 * Checks an audit log: edits, reordering, copies, missing lines, forged checkpoints. What is missing at the end, and
 * a log that was replaced by an older copy or written anew, shows only against an anchor kept elsewhere. Lines after
 * the last anchored checkpoint can be cut unseen: at most 10 s or 1,000 records of a running agent.
 */
import { anchorOfLine, isSigned } from './audit-anchor.ts'
import { type Anchor, type ChainEnd, sha256 } from './audit-chain.ts'
import { type AuditLine, type ChainedRecord, parseRecord, readAuditLines } from './audit-lines.ts'

export type AuditVerdict = 'ok' | 'consistent, not anchored' | 'broken'

/** Something at one line. */
export interface AuditFinding {
  readonly file: string
  readonly line: number
  readonly what: string
}

export interface AuditReport {
  readonly verdict: AuditVerdict
  readonly records: number
  readonly boots: number
  /** What cannot be with an untouched log; the first 100. */
  readonly problems: readonly AuditFinding[]
  /** What an untouched log admits: lost records, torn lines, two agents at once; the first 100. */
  readonly notes: readonly AuditFinding[]
  /** Anchors found in the log. */
  readonly anchored: number
  /** Records after the last anchored checkpoint, which nothing outside the log vouches for. */
  readonly unanchored: number
}

/** Reads `files`, oldest first (see `auditFiles`); throws errno errors for one that cannot be read. */
export function verifyAudit(files: Iterable<string>, anchors: readonly Anchor[] = []): AuditReport {
  return verifyAuditLines(readAuditLines(files), anchors)
}

export function verifyAuditLines(lines: Iterable<AuditLine>, anchors: readonly Anchor[] = []): AuditReport {
  const verifier = new Verifier(anchors)
  for (const line of lines) verifier.take(line)
  return verifier.finish()
}

const FINDINGS_LIMIT = 100
const BOOTS_LIMIT = 1_000
/** Lines that another boot may have written between an agent's look at the log and its first line. */
const OVERLAP_LIMIT = 1_000

interface BootState extends ChainEnd {
  readonly key: string | undefined
  /** Records since its last checkpoint. */
  readonly unsigned: number
}

class Verifier {
  readonly #problems: AuditFinding[] = []
  readonly #notes: AuditFinding[] = []
  readonly #anchors: Map<string, Anchor>
  readonly #boots = new Map<string, BootState>()
  /** Hashes of the last lines, oldest first. */
  readonly #recent = new Set<string>()
  #records = 0
  #bootCount = 0
  #matched = 0
  #unanchored = 0
  #head: (AuditFinding & { readonly seq: number }) | undefined
  #declaredFirst = 0
  #last: (ChainEnd & { readonly boot: string }) | undefined
  #broken: AuditLine | undefined
  #isOverlapNoted = false
  readonly #unsigned = new Map<string, AuditFinding>()

  constructor(anchors: readonly Anchor[]) {
    this.#anchors = new Map(anchors.map((anchor) => [keyOf(anchor), anchor]))
    for (const anchor of anchors)
      if (!isSigned(anchor)) this.#problem(ANCHORS, `the anchor of seq ${anchor.seq} has a wrong signature`)
  }

  take(line: AuditLine): void {
    const record = parseRecord(line)
    if (!record) {
      this.#reportBroken()
      this.#broken = line
      return
    }
    this.#records++
    this.#unanchored++
    this.#checkTorn(line, record)
    this.#checkPlace(line, record)
    const hash = sha256(line.bytes)
    const key = record.event === 'audit.checkpoint' ? this.#checkSignature(line, record) : undefined
    this.#noteOwn(line, record)
    const { seq, boot } = record
    const before = this.#boots.get(boot)
    const unsigned = key ? 0 : (before?.unsigned ?? 0) + 1
    this.#boots.set(boot, { seq, hash, key: key ?? before?.key, unsigned })
    this.#last = { seq, hash, boot }
    forgetOldest(this.#recent, OVERLAP_LIMIT)
    this.#recent.add(hash)
  }

  finish(): AuditReport {
    this.#reportBroken()
    const head = this.#head
    if (head && head.seq > this.#declaredFirst)
      this.#problem(head, `the log begins at seq ${head.seq}: its head was cut`)
    for (const { seq } of this.#anchors.values()) {
      if (head && seq < head.seq && head.seq <= this.#declaredFirst) continue
      this.#problem(ANCHORS, `the anchored checkpoint of seq ${seq} is not in the log: cut, or an older copy`)
    }
    for (const finding of this.#unsigned.values()) this.#note(finding, finding.what)
    const isWhole = this.#problems.length === 0
    return {
      verdict: isWhole ? (this.#matched > 0 ? 'ok' : 'consistent, not anchored') : 'broken',
      records: this.#records,
      boots: this.#bootCount,
      problems: this.#problems,
      notes: this.#notes,
      anchored: this.#matched,
      unanchored: this.#unanchored,
    }
  }

  /** A line that is no record may stand where a crash tore it, if the next boot owned up to it. */
  #checkTorn(line: AuditLine, { event, members }: ChainedRecord): void {
    const broken = this.#broken
    this.#broken = undefined
    const isOwned =
      event === 'audit.open' &&
      members['torn'] === broken?.bytes.length &&
      broken !== undefined &&
      members['torn_hash'] === sha256(broken.bytes)
    if (isOwned) this.#note(broken, 'the agent stopped while it wrote this line; the next boot says so')
    else if (broken) {
      this.#broken = broken
      this.#reportBroken()
    } else if (members['torn'] !== undefined && event === 'audit.open')
      this.#problem(line, 'the torn line that this record speaks of is gone')
  }

  #reportBroken(): void {
    if (!this.#broken) return
    const { flaw } = this.#broken
    this.#problem(
      this.#broken,
      flaw === 'unfinished'
        ? 'the line has no end: the agent stopped here, or the file was cut'
        : 'not an audit record',
    )
    this.#broken = undefined
  }

  #checkPlace(line: AuditLine, record: ChainedRecord): void {
    const known = this.#boots.get(record.boot)
    if (!known) this.#checkOpening(line, record)
    else if (record.event === 'audit.open') this.#problem(line, 'the boot begins a second time')
    else if (record.prev !== known.hash || record.seq !== known.seq + 1)
      this.#problem(line, breakBetween(known.seq, record.seq))
    else if (this.#last?.boot !== record.boot) this.#noteOverlap(line)
    this.#unsigned.delete(record.boot)
  }

  /** The first record of a boot names the line before it, or one shortly before while another agent still writes. */
  #checkOpening(line: AuditLine, { seq, prev, event }: ChainedRecord): void {
    this.#bootCount++
    forgetOldest(this.#boots, BOOTS_LIMIT)
    const last = this.#last
    if (!last) {
      if (seq !== 1 || prev !== '') this.#head = { ...placeOf(line), what: '', seq }
      else if (event !== 'audit.open') this.#problem(line, 'the log does not begin with audit.open')
    } else if (event !== 'audit.open') this.#problem(line, 'a boot begins without audit.open')
    else if (prev === last.hash && seq === last.seq + 1) this.#noteUnsigned(line, last.boot)
    else if (prev !== last.hash && this.#recent.has(prev)) this.#noteOverlap(line)
    else
      this.#problem(line, 'the boot began behind another line than the one before: lines were cut or put in')
  }

  /** The key of the boot when the checkpoint is signed by it. */
  #checkSignature(line: AuditLine, { seq, boot, members }: ChainedRecord): string | undefined {
    const anchor = anchorOfLine(line.bytes.toString(), seq, members['public_key'])
    const key = this.#boots.get(boot)?.key
    if (!anchor || !isSigned(anchor)) this.#problem(line, 'the checkpoint has a wrong signature')
    else if (key && key !== anchor.publicKey)
      this.#problem(line, 'the checkpoint is signed by another key than this boot has')
    else {
      this.#matchAnchor(anchor)
      return anchor.publicKey
    }
    return undefined
  }

  #matchAnchor(found: Anchor): void {
    const anchor = this.#anchors.get(keyOf(found))
    if (anchor?.signature !== found.signature || anchor.publicKey !== found.publicKey) return
    this.#anchors.delete(keyOf(found))
    this.#matched++
    this.#unanchored = 0
  }

  #noteOwn(line: AuditLine, { event, members }: ChainedRecord): void {
    const { first, lost } = members
    if (event === 'audit.rotate' && typeof first === 'number') this.#declaredFirst = first
    if (event === 'audit.gap' && typeof lost === 'number' && lost > 0)
      this.#note(line, `${lost} records were lost while the log could not be written`)
  }

  #noteOverlap(line: AuditLine): void {
    if (!this.#isOverlapNoted) this.#note(line, 'agents of two boots write at the same time')
    this.#isOverlapNoted = true
  }

  /** Told at the end: a boot that is only being taken over from writes on, and its own checkpoint. */
  #noteUnsigned(line: AuditLine, boot: string): void {
    const unsigned = this.#boots.get(boot)?.unsigned ?? 0
    const what = `the boot before ended without a checkpoint: no signature covers its last ${unsigned} records`
    if (unsigned > 0 && this.#unsigned.size < FINDINGS_LIMIT)
      this.#unsigned.set(boot, { ...placeOf(line), what })
  }

  #problem(line: AuditLine | AuditFinding, what: string): void {
    if (this.#problems.length < FINDINGS_LIMIT) this.#problems.push({ ...placeOf(line), what })
  }

  #note(line: AuditLine | AuditFinding, what: string): void {
    if (this.#notes.length < FINDINGS_LIMIT) this.#notes.push({ ...placeOf(line), what })
  }
}

/** Where a problem of the anchors themselves is. */
const ANCHORS: AuditFinding = { file: 'anchors', line: 0, what: '' }

function placeOf({ file, line }: { readonly file: string; readonly line: number }) {
  return { file, line }
}

function forgetOldest(
  all: { readonly size: number; keys(): Iterable<string>; delete(key: string): boolean },
  limit: number,
): void {
  if (all.size < limit) return
  for (const oldest of all.keys()) {
    all.delete(oldest)
    return
  }
}

function keyOf({ seq, hash }: Anchor): string {
  return `${seq} ${hash}`
}

function breakBetween(before: number, seq: number): string {
  const missing = seq - before - 1
  if (missing > 0) return `${missing} records are missing before this line`
  if (missing < 0) return `seq ${seq} stands behind seq ${before}: out of order, or there twice`
  return 'this line was chained to another one than the one before: one of the two was edited'
}
