/**
 * Pods by the Pods API of a kubelet, or over HTTPS where it has none (`attestor: auto`). The first answer decides, and stays:
 * `GET /pods` lags behind the Pods API, and a container known by one must not be over by the other.
 */
import { Fault } from '../base/fault.ts'
import { membersOf } from '../base/members.ts'
import type { PodList } from './pod-list.ts'
import type { PodLists } from './pod-source.ts'
import { isInitializing, isRateLimit, isUnimplemented } from './pods-api-trouble.ts'

export interface EitherOptions {
  readonly podsApi: PodLists
  /** Called at most once. */
  readonly kubelet: () => PodLists
  /** Ends with the agent. */
  readonly signal: AbortSignal
  /** Hears which it is, at the start and when that changes: why not the Pods API, or undefined. */
  readonly onChosen: (why: string | undefined) => void
}

/** Asks one kubelet in whichever way it can be asked. */
export class EitherLists implements PodLists {
  readonly #options: EitherOptions
  #chosen: Promise<PodLists>
  #kubelet: PodLists | undefined

  constructor(options: EitherOptions) {
    this.#options = options
    this.#chosen = this.#choose()
    // Whoever asks hears of it.
    this.#chosen.catch(() => {})
  }

  async ask(signal: AbortSignal): Promise<PodList> {
    const lists = await this.#chosen
    try {
      return await lists.ask(signal)
    } catch (error) {
      if (lists !== this.#options.podsApi || !isUnimplemented(causeOf(error))) throw error
      // The kubelet was updated to one that has this version of the API no more.
      const kubelet = this.#askKubelet(messageOf(error))
      this.#chosen = Promise.resolve(kubelet)
      return kubelet.ask(signal)
    }
  }

  listen(ring: () => void): void {
    this.#chosen.then(
      (lists) => lists.listen?.(ring),
      () => {},
    )
  }

  close(): void {
    this.#options.podsApi.close()
    this.#kubelet?.close()
  }

  async #choose(): Promise<PodLists> {
    const { podsApi, signal, onChosen } = this.#options
    const why = await whyNotPodsApi(podsApi, signal)
    if (signal.aborted) return podsApi
    if (why !== undefined) return this.#askKubelet(why)
    onChosen(undefined)
    return podsApi
  }

  #askKubelet(why: string): PodLists {
    const { kubelet, podsApi, onChosen } = this.#options
    onChosen(why)
    podsApi.close()
    this.#kubelet ??= kubelet()
    return this.#kubelet
  }
}

/** Why the Pods API cannot be asked; undefined where it answers, though it may have no list yet. */
export async function whyNotPodsApi(podsApi: PodLists, signal: AbortSignal): Promise<string | undefined> {
  try {
    await podsApi.ask(signal)
    return undefined
  } catch (error) {
    const cause = causeOf(error)
    return isInitializing(cause) || isRateLimit(cause) ? undefined : messageOf(error)
  }
}

const causeOf = (error: unknown): unknown => membersOf(error)['cause'] ?? error
const messageOf = (error: unknown): string => Fault.from(error).message
