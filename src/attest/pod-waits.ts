/**
 * Callers that wait for what the kubelet says of them. Each hears every list, whoever asked for it; as long as somebody waits,
 * another is asked for soon after the newest.
 */
import type { Clock, Millis } from '../base/clock.ts'
import type { PodSource, PodsAnswer } from './pod-source.ts'

/** How long after a list the next is asked for: most statuses are written within a second. */
const FIRST: Millis = 50
const LEAST: Millis = 100
const MOST: Millis = 250
/** Between the two, so many times what the last one took: a kubelet that is busy with lists starts nothing. */
const REST = 4
/** So many callers in a row find the kubelet asked at once, and then one each `REFILL`: some come again and again. */
const AT_ONCE = 20
const REFILL: Millis = 500

interface Wait {
  /** Whether `answer` settles it. */
  readonly hear: (answer: PodsAnswer) => boolean
  readonly resolve: () => void
}

/** All who wait for one kubelet. */
export class PodWaits {
  readonly #kubelet: Pick<PodSource, 'since'>
  readonly #clock: Clock
  readonly #waits = new Set<Wait>()
  #pause = FIRST
  #isArmed = false
  /** When all of `AT_ONCE` will be there again. */
  #full: Millis = -Infinity
  #cancel = () => {}

  constructor(kubelet: Pick<PodSource, 'since'>, clock: Clock) {
    this.#kubelet = kubelet
    this.#clock = clock
  }

  /** Asks now, unless many have just come, and again until `hear` is true of an answer. Never rejects. */
  until(hear: Wait['hear']): Promise<void> {
    const waiting = new Promise<void>((resolve) => this.#waits.add({ hear, resolve }))
    if (this.#isAtOnce()) {
      this.#pause = FIRST
      this.#ask()
    } else if (!this.#isArmed) this.#arm(Math.max(LEAST, this.#pause))
    return waiting
  }

  /** For each answer of the kubelet. */
  take(answer: PodsAnswer): void {
    for (const wait of [...this.#waits]) if (wait.hear(answer)) this.#end(wait)
    this.#disarm()
    if (this.#waits.size === 0) return
    this.#arm(this.#pause)
    this.#pause = Math.max(LEAST, Math.min(MOST, REST * (this.#clock.monotonic() - answer.asked)))
  }

  stop(): void {
    this.#disarm()
    for (const wait of [...this.#waits]) this.#end(wait)
  }

  #isAtOnce(): boolean {
    const now = this.#clock.monotonic()
    const full = Math.max(this.#full, now) + REFILL
    if (full - now > AT_ONCE * REFILL) return false
    this.#full = full
    return true
  }

  #arm(wait: Millis): void {
    this.#isArmed = true
    this.#cancel = this.#clock.after(wait, () => {
      this.#isArmed = false
      this.#ask()
    })
  }

  #disarm(): void {
    this.#cancel()
    this.#isArmed = false
  }

  #ask(): void {
    void this.#kubelet.since(this.#clock.monotonic()).catch(() => {})
  }

  #end(wait: Wait): void {
    this.#waits.delete(wait)
    wait.resolve()
  }
}
