/** How long each container may count that its pod does not list as running; remembered beyond its callers. */
import type { Millis } from '../base/clock.ts'

/** How long a container may be known although the kubelet does not list it (`unlisted_containers: awaited`). */
const UNLISTED_LIMIT: Millis = 60_000
/** More than a node runs in a minute. */
const REMEMBERED = 4_096

/** A bounded memory; who was not heard of for longest goes first. */
export class Unlisted {
  readonly #since = new Map<string, Millis | 'listed'>()

  /** Whether the container may be known without being listed: never once it was, and not for ever. */
  mayCount(containerId: string, now: Millis): boolean {
    const since = this.#since.get(containerId) ?? now
    return since !== 'listed' && now - since <= UNLISTED_LIMIT
  }

  /** The container is known at `now`. */
  note(containerId: string, isListed: boolean, now: Millis): void {
    const since = isListed ? 'listed' : (this.#since.get(containerId) ?? now)
    this.#since.delete(containerId)
    this.#since.set(containerId, since)
    const [oldest] = this.#since.keys()
    if (this.#since.size > REMEMBERED && oldest !== undefined) this.#since.delete(oldest)
  }
}
