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
  /** The UID of the agent's own pod, where it is in one: a list without it is not whole. */
  readonly ownPod?: string | undefined
}

/** For so long a list without pods of the API server is taken for the first of a kubelet that has just started. */
const START_LIMIT: Millis = 10_000

/** Asks one kubelet. */
export class Kubelet {
  readonly #options: KubeletOptions
  readonly #watchers = new Set<() => void>()
  readonly #ending = new AbortController()
  #newest: Listed | undefined
  #bytes: Buffer | undefined
  #flight: { readonly asked: Millis; readonly answer: Promise<Listed> } | undefined
  #next: Promise<Listed> | undefined
  /** When the newest list that had pods of the API server was asked for. */
  #whole: Millis = -Infinity
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
    const before = this.#bytes?.equals(bytes) ? this.#newest : undefined
    const list = before?.list ?? parsePods(parseJson(bytes))
    this.#checkWhole(list, asked)
    this.#bytes = bytes
    return { list, asked }
  }

  /** A kubelet that has just started lists no pods, or only those of its manifests, until it has heard of the others. */
  #checkWhole(list: PodList, asked: Millis): void {
    const { ownPod } = this.#options
    const isWhole = ownPod === undefined ? hasApiPods(list) : list.byUid.has(ownPod)
    if (isWhole) this.#whole = asked
    else if (ownPod !== undefined || asked - this.#whole <= START_LIMIT)
      throw new Fault(
        'pod_facts_unavailable',
        `the kubelet lists ${list.byUid.size} pods and ${ownPod === undefined ? 'none of the API server' : 'not the one of the agent'}: it has just started`,
        { action: 'Wait until the kubelet has heard from the API server; then look at its log.' },
      )
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

function hasApiPods({ byUid }: PodList): boolean {
  return [...byUid.values()].some(({ isStatic }) => !isStatic)
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new Fault('pod_facts_unavailable', 'the kubelet answers with something that is not JSON')
  }
}
