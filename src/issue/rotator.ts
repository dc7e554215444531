/** When open streams must be told: an SVID is due, the bundle changed, or policy did. */
import type { Clock, Millis } from '../base/clock.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Svids } from './svids.ts'
import type { TrustedBundles } from './trusted-bundles.ts'

const TICK: Millis = 1_000

export interface RotatorOptions {
  readonly svids: Svids
  readonly bundles: TrustedBundles
  readonly book: Live<RuleBook>
  readonly clock: Clock
}

/** Calls its watchers after each change; they compare and send what is new to them. */
export class Rotator {
  readonly #options: RotatorOptions
  readonly #watchers = new Set<() => void>()
  readonly #stops: (() => void)[]
  #cancel = () => {}

  constructor(options: RotatorOptions) {
    this.#options = options
    const { bundles, book, svids } = options
    this.#stops = [
      bundles.own.watch(() => this.tell()),
      bundles.federated.watch(() => this.tell()),
      book.watch((next) => {
        svids.keepOnly(next.identities())
        this.tell()
      }),
    ]
    this.resume()
  }

  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
    }
  }

  get watchers(): number {
    return this.#watchers.size
  }

  /** After revocations too: streams must show what is left, or end. */
  tell(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }

  /** An agent whose socket was taken renews nothing: its successor does. */
  pause(): void {
    this.#cancel()
  }

  resume(): void {
    this.#cancel()
    this.#cancel = this.#options.clock.after(TICK, () => {
      if (this.#options.svids.isDue) this.tell()
      this.resume()
    })
  }

  stop(): void {
    this.#cancel()
    for (const stop of this.#stops) stop()
    this.#watchers.clear()
  }
}
