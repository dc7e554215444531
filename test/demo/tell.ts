/** What the demo prints: one step a line, what was done, what came back, why and who can say otherwise. */

/** What came of one step. */
export interface Outcome {
  readonly status: number
  /** Why it was refused, or what was proved. */
  readonly reason: string
  /** Who decided. */
  readonly owner: string
}

export interface Wanted {
  readonly status: number
  readonly reason?: string
}

const WIDTH = 50
const SHOWN = 12

/** Prints the story and keeps whether it went as it should. */
export class Teller {
  #wrong = 0
  readonly #write: (text: string) => void

  constructor(write: (text: string) => void) {
    this.#write = write
  }

  get wrong(): number {
    return this.#wrong
  }

  say(text = ''): void {
    this.#write(`${text}\n`)
  }

  heads(): void {
    this.#row('', 'WHAT HAPPENS', 'ANSWER', 'REASON', 'WHO DECIDED')
  }

  /** One step; it is marked when it did not end as wanted. */
  step(what: string, outcome: Outcome, wanted: Wanted): void {
    const isRight =
      outcome.status === wanted.status && (wanted.reason === undefined || outcome.reason === wanted.reason)
    if (!isRight) this.#wrong += 1
    this.#row(isRight ? '✓' : '✗', what, String(outcome.status), outcome.reason, outcome.owner)
    if (!isRight) this.say(`    wanted ${[wanted.status, wanted.reason ?? ''].join(' ').trim()}`)
  }

  /** What has to hold, without an answer of its own. */
  check(what: string, isRight: boolean, wanted: string): void {
    if (!isRight) this.#wrong += 1
    this.say(`  ${isRight ? '✓' : '✗'} ${what}`)
    if (!isRight) this.say(`    wanted ${wanted}`)
  }

  #row(mark: string, what: string, status: string, reason: string, owner: string): void {
    const line = `${mark.padEnd(2)}${what.padEnd(WIDTH)}  ${status.padEnd(6)}  ${reason.padEnd(18)}  ${owner}`
    this.say(`  ${line.trimEnd()}`)
  }
}

/** The beginning of a secret, enough to tell two apart. */
export function beginning(secret: string): string {
  return `${secret.slice(0, SHOWN)}…`
}
