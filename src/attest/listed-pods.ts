/**
 * The list of pods of this node: one request at a time, shared by all who wait, and again and again while anybody holds
 * an identity by it, sooner when its kubelet says that something changed. A list that fails in any way changes nothing.
 */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Health } from '../telemetry/health.ts'
import type { PodList } from './pod-list.ts'
import type { Listed, PodLists, PodSource, PodsAnswer } from './pod-source.ts'

export interface ListedPodsOptions {
  readonly lists: PodLists
  readonly clock: Clock
  readonly health: Health
  readonly every: Millis
  /** The UID of the agent's own pod, where it is in one: a list without it is not whole. */
  readonly ownPod?: string | undefined
}

/** For so long a list without pods of the API server is taken for the first of a kubelet that has just started. */
const START_LIMIT: Millis = 10_000

/** Between two lists that were rung for: a node that starts a hundred pods changes all the time. */
const RING_GAP: Millis = 100
/** From a list that was rung for to the next one. */
const ECHO: Millis = 250

/** Asks one kubelet, in one way. */
export class ListedPods implements PodSource {
  readonly #options: ListedPodsOptions
  readonly #watchers = new Set<(answer: PodsAnswer) => void>()
  readonly #ending = new AbortController()
  #newest: Listed | undefined
  #flight: { readonly asked: Millis; readonly answer: Promise<Listed> } | undefined
  #next: Promise<Listed> | undefined
  #isDown = false
  #isNeeded = false
  #isListening = false
  #rung: Millis = -Infinity
  /** When the newest list that had pods of the API server was asked for. */
  #whole: Millis = -Infinity
  #cancel = () => {}
  #hush: (() => void) | undefined

  constructor(options: ListedPodsOptions) {
    this.#options = options
  }

  get newest(): Listed | undefined {
    return this.#newest
  }

  get isDown(): boolean {
    return this.#isDown
  }

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

  watch(watcher: (answer: PodsAnswer) => void): void {
    this.#watchers.add(watcher)
  }

  need(isNeeded: boolean): void {
    if (isNeeded === this.#isNeeded) return
    this.#isNeeded = isNeeded
    if (!isNeeded) this.#cancel()
    else {
      this.#arm()
      this.#listen()
    }
  }

  stop(): void {
    this.#isNeeded = false
    this.#cancel()
    this.#hush?.()
    this.#ending.abort(new Fault('canceled'))
    this.#options.lists.close()
  }

  #listen(): void {
    if (this.#isListening) return
    this.#isListening = true
    this.#options.lists.listen?.(() => this.#ring())
  }

  #arm(wait = this.#options.every): void {
    this.#cancel()
    this.#cancel = this.#options.clock.after(wait, () => {
      this.#refresh()
      if (this.#isNeeded) this.#arm()
    })
  }

  #ring(): void {
    if (!this.#isNeeded || this.#hush) return
    const { clock } = this.#options
    this.#hush = clock.after(Math.max(0, this.#rung + RING_GAP - clock.monotonic()), () => {
      this.#hush = undefined
      this.#rung = clock.monotonic()
      this.#refresh()
      // A pod that is deleted by force is told of before it leaves the list.
      if (this.#isNeeded) this.#arm(Math.min(this.#options.every, ECHO))
    })
  }

  #refresh(): void {
    void this.since(this.#options.clock.monotonic()).catch(() => {})
  }

  #ask(): Promise<Listed> {
    const asked = this.#options.clock.monotonic()
    const answer = this.#load(asked).then(
      (listed) => this.#take(listed),
      (error: unknown) => this.#fail(error, asked),
    )
    this.#flight = { asked, answer }
    return answer
  }

  async #load(asked: Millis): Promise<Listed> {
    const list = await this.#options.lists.ask(this.#ending.signal)
    this.#checkWhole(list, asked)
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
    this.#tell(listed)
    return listed
  }

  #fail(error: unknown, asked: Millis): never {
    this.#flight = undefined
    const { message, action } = Fault.from(error, 'pod_facts_unavailable')
    const fault = new Fault('pod_facts_unavailable', message, { action })
    if (!this.#ending.signal.aborted) {
      this.#isDown = true
      this.#options.health.degrade({ code: 'kubelet_unavailable', message, action })
      this.#tell({ fault, asked })
    }
    throw fault
  }

  #tell(answer: PodsAnswer): void {
    for (const watcher of [...this.#watchers]) watcher(answer)
  }
}

function hasApiPods({ byUid }: PodList): boolean {
  return [...byUid.values()].some(({ isStatic }) => !isStatic)
}
