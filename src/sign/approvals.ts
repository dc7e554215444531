/** Requests that wait for a person: whom they are shown to, how they are answered, and when they give up. */
import { randomBytes } from 'node:crypto'
import type { Workload } from '../attest/workload.ts'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { Shares } from '../base/shares.ts'
import type { Approval } from '../policy/grant.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { checkOver, type Hold, whenOver } from './over.ts'

/** A request that wants approval. */
export interface ApprovalAsk extends Hold {
  readonly workload: Workload
  readonly spiffeId: SpiffeId
  readonly target: string
  /** A known method, or `other`: never what a caller wrote. */
  readonly method: string
  /** The granted path as policy writes it: a request's own may hold a secret. */
  readonly path: string
  readonly approval: Approval
}

/** A waiting request as a person sees it, in the names of the wire; times in seconds since 1970. */
export interface WaitingRequest {
  readonly id: string
  readonly spiffe_id: SpiffeId
  readonly pid: number
  readonly method: string
  readonly target: string
  readonly path: string
  readonly on: Approval['on']
  readonly since: Seconds
  readonly deadline: Seconds
}

interface Waiting {
  readonly shown: WaitingRequest
  readonly ask: ApprovalAsk
  readonly end: (fault: Fault | undefined) => void
}

export const WAITING_LIMIT = 1_000
export const WAITING_PER_INSTANCE = 16
const MILLIS = 1000
const ID_BYTES = 6

/** States of a request: waiting -> approved, denied, or over. */
export class Approvals {
  readonly #clock: Clock
  readonly #waiting = new Map<string, Waiting>()
  readonly #shares = new Shares('requests that wait for approval', WAITING_LIMIT)

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The requests that wait, the oldest first. */
  list(): readonly WaitingRequest[] {
    return [...this.#waiting.values()].map(({ shown }) => shown)
  }

  get count(): number {
    return this.#waiting.size
  }

  find(id: string): WaitingRequest | undefined {
    return this.#waiting.get(id)?.shown
  }

  /**
   * Resolves when a person agrees. Rejects with approval_refused when they do not or nobody answers in time, and with
   * lease_ended or canceled; with target_busy or overloaded when too many wait.
   */
  async wait(ask: ApprovalAsk): Promise<void> {
    checkOver(ask)
    const leave = this.#takePlace(ask)
    const { approval, method, path, spiffeId, target, workload } = ask
    const since = nowSeconds(this.#clock)
    const shown: WaitingRequest = {
      id: randomBytes(ID_BYTES).toString('hex'),
      spiffe_id: spiffeId,
      pid: workload.peer.pid,
      method,
      target,
      path,
      on: approval.on,
      since,
      deadline: since + approval.wait,
    }
    return new Promise((resolve, reject) => {
      const stops: (() => void)[] = [leave]
      const end = (fault: Fault | undefined) => {
        this.#waiting.delete(shown.id)
        for (const stop of stops) stop()
        if (fault) reject(fault)
        else resolve()
      }
      this.#waiting.set(shown.id, { shown, ask, end })
      const late = () => end(new Fault('approval_refused', `nobody agreed within ${approval.wait} s`))
      stops.push(this.#clock.after(approval.wait * MILLIS, late))
      stops.push(whenOver(ask, end))
    })
  }

  /** Answers `id`, and with it what waits for the first use of the same target by the same instance; how many. */
  answer(id: string, isAllowed: boolean): number {
    const found = this.#waiting.get(id)
    if (!found) return 0
    const alike = [...this.#waiting.values()].filter((other) => other === found || isSameUse(other, found))
    const denied = isAllowed ? undefined : new Fault('approval_refused', 'a person was asked and said no')
    for (const { end } of alike) end(denied)
    return alike.length
  }

  #takePlace({ instance, spiffeId, target }: ApprovalAsk): () => void {
    let own = 0
    for (const { ask } of this.#waiting.values()) if (ask.instance === instance) own += 1
    if (own >= WAITING_PER_INSTANCE)
      throw new Fault('target_busy', `${own} requests of this workload wait for approval, its limit`, {
        action: `Wait until those for ${target} have been answered.`,
      })
    return this.#shares.take(spiffeId)
  }
}

function isSameUse(one: Waiting, other: Waiting): boolean {
  return (
    one.shown.on === 'first_use' &&
    other.shown.on === 'first_use' &&
    one.ask.instance === other.ask.instance &&
    one.ask.target === other.ask.target
  )
}
