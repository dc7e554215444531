/**
 * The list of pods of this node, by `GET /pods` of its kubelet: one request at a time, shared by all who wait, and
 * again and again while anybody holds an identity by it. A list that fails in any way changes nothing.
 */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { ClusterHttps } from '../cluster/https.ts'
import type { Health } from '../telemetry/health.ts'
import { type PodList, parsePods } from './pod-list.ts'

/** A list, and when it was asked for: nothing older is in it. */
export interface Listed {
  readonly list: PodList
  readonly asked: Millis
}

export interface KubeletOptions {
  readonly https: Pick<ClusterHttps, 'ask' | 'refusal' | 'close'>
  readonly clock: Clock
  readonly health: Health
  readonly every: Millis
  readonly maxBytes: number
}

/** Asks one kubelet. */
export class Kubelet {
  readonly #options: KubeletOptions
  readonly #watchers = new Set<() => void>()
  readonly #ending = new AbortController()
  #newest: Listed | undefined
  #bytes: Buffer | undefined
  #flight: { readonly asked: Millis; readonly answer: Promise<Listed> } | undefined
  #next: Promise<Listed> | undefined
  #isDown = false
  #isNeeded = false
  #cancel = () => {}

  constructor(options: KubeletOptions) {
    this.#options = options
  }

  get newest(): Listed | undefined {
    return this.#newest
  }

  /** Whether the last request failed. */
  get isDown(): boolean {
    return this.#isDown
  }

  /** A list that was asked for at `since` or later; throws pod_facts_unavailable. */
  async since(since: Millis): Promise<Listed> {
    if (this.#newest && this.#newest.asked > since) return this.#newest
    if (!this.#flight) return this.#ask()
    if (this.#flight.asked >= since) return this.#flight.answer
    // Whoever comes while one is under way shares the one behind it.
    this.#next ??= this.#flight.answer
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined
        return this.#flight?.answer ?? this.#ask()
      })
    return this.#next
  }

  /** Calls `watcher` after each answer, good or bad. */
  watch(watcher: () => void): void {
    this.#watchers.add(watcher)
  }

  /** Whether to go on asking. */
  need(isNeeded: boolean): void {
    if (isNeeded === this.#isNeeded) return
    this.#isNeeded = isNeeded
    if (isNeeded) this.#arm()
    else this.#cancel()
  }

  stop(): void {
    this.#cancel()
    this.#ending.abort(new Fault('canceled'))
    this.#options.https.close()
  }

  #arm(): void {
    this.#cancel()
    const { clock, every } = this.#options
    this.#cancel = clock.after(every, () => {
      void this.since(clock.monotonic()).catch(() => {})
      if (this.#isNeeded) this.#arm()
    })
  }

  #ask(): Promise<Listed> {
    const asked = this.#options.clock.monotonic()
    const answer = this.#load(asked).then(
      (listed) => this.#take(listed),
      (error: unknown) => this.#fail(error),
    )
    this.#flight = { asked, answer }
    return answer
  }

  async #load(asked: Millis): Promise<Listed> {
    const { https, maxBytes } = this.#options
    const { status, bytes } = await https.ask('/pods', { signal: this.#ending.signal, maxBytes })
    if (status !== 200) throw https.refusal(status)
    // Most lists are the one before, byte for byte: comparing costs a hundredth of parsing.
    if (this.#newest && this.#bytes?.equals(bytes)) return { list: this.#newest.list, asked }
    const list = parsePods(parseJson(bytes))
    this.#bytes = bytes
    return { list, asked }
  }

  #take(listed: Listed): Listed {
    this.#flight = undefined
    this.#newest = listed
    this.#isDown = false
    this.#options.health.recover('kubelet_unavailable')
    for (const watcher of [...this.#watchers]) watcher()
    return listed
  }

  #fail(error: unknown): never {
    this.#flight = undefined
    const { message, action } = Fault.from(error, 'pod_facts_unavailable')
    if (!this.#ending.signal.aborted) {
      this.#isDown = true
      this.#options.health.degrade({ code: 'kubelet_unavailable', message, action })
      for (const watcher of [...this.#watchers]) watcher()
    }
    throw new Fault('pod_facts_unavailable', message, { action })
  }
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new Fault('pod_facts_unavailable', 'the kubelet answers with something that is not JSON')
  }
}
