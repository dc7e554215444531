/**
 * Fault: the one error type, over a closed list of reasons. A reason is the metric label, the audit field and the
 * anchor of the reference page; a Fault has no free-form details, so there is nowhere to put a token.
 */
import { type Owner, REASONS, type Reason } from './reasons.ts'

export type { Owner, Reason } from './reasons.ts'

export interface FaultOptions {
  /** What the reader should do; the reason's own cure when absent. */
  readonly action?: string
  /** The layer that has to act; the reason's own owner when absent. */
  readonly owner?: Owner
  readonly retryAfterSeconds?: number
  /** Kept for a debugger, never serialised: libraries put payloads and headers on their errors. */
  readonly cause?: unknown
}

/** What a Fault shows of itself, on every wire and in every log. */
export interface FaultJson {
  readonly reason: Reason
  readonly message: string
  readonly action: string
  readonly owner: Owner
  readonly docs: string
}

/** A refusal or failure with a stable reason. `message` is public: it holds facts seen and wanted, never a secret. */
export class Fault extends Error {
  readonly reason: Reason
  readonly action: string
  readonly owner: Owner
  readonly retryAfterSeconds: number | undefined

  constructor(reason: Reason, message?: string, options: FaultOptions = {}) {
    super(printable(message ?? REASONS[reason].cause))
    this.name = 'Fault'
    this.reason = reason
    this.action = printable(options.action ?? REASONS[reason].cure)
    this.owner = options.owner ?? REASONS[reason].owner
    this.retryAfterSeconds = options.retryAfterSeconds
    if (options.cause !== undefined)
      Object.defineProperty(this, 'cause', { value: options.cause, enumerable: false })
  }

  /** The same shape on every wire: `{"error": fault}`. */
  toJSON(): FaultJson {
    return {
      reason: this.reason,
      message: this.message,
      action: this.action,
      owner: this.owner,
      docs: `https://holdfast.dev/reasons#${this.reason}`,
    }
  }

  /** Anything caught, as a Fault: a Fault stays itself, everything else becomes `reason` without its text. */
  static from(caught: unknown, reason: Reason = 'bug'): Fault {
    return caught instanceof Fault ? caught : new Fault(reason, undefined, { cause: caught })
  }
}

const MESSAGE_LIMIT = 1024

/** Caller-supplied text ends in messages; control characters there would forge log lines (threats row 12). */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is being replaced.
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '\ufffd')
  return clean.length > MESSAGE_LIMIT ? `${clean.slice(0, MESSAGE_LIMIT)}…` : clean
}
