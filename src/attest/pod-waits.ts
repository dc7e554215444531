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
  #cancel = () => {}

  constructor(kubelet: Pick<PodSource, 'since'>, clock: Clock) {
    this.#kubelet = kubelet
    this.#clock = clock
  }

  /** Asks now, and again until `hear` is true of an answer. Never rejects. */
  until(hear: Wait['hear']): Promise<void> {
    this.#pause = FIRST
    const waiting = new Promise<void>((resolve) => this.#waits.add({ hear, resolve }))
    this.#ask()
    return waiting
  }

  /** For each answer of the kubelet. */
  take(answer: PodsAnswer): void {
    for (const wait of [...this.#waits]) if (wait.hear(answer)) this.#end(wait)
    this.#cancel()
    if (this.#waits.size === 0) return
    this.#cancel = this.#clock.after(this.#pause, () => this.#ask())
    this.#pause = Math.max(LEAST, Math.min(MOST, REST * (this.#clock.monotonic() - answer.asked)))
  }

  stop(): void {
    this.#cancel()
    for (const wait of [...this.#waits]) this.#end(wait)
  }

  #ask(): void {
    void this.#kubelet.since(this.#clock.monotonic()).catch(() => {})
  }

  #end(wait: Wait): void {
    this.#waits.delete(wait)
    wait.resolve()
  }
}
