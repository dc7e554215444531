/** Whether identities rest on facts that are older than they may be, because the source of facts is down: told once, and once when it is over. */
import type { Millis } from '../base/clock.ts'

export interface OutageTold {
  readonly isOver: boolean
  /** Containers with an identity by such facts; when it is over, all that are known. */
  readonly containers: number
}

/** See above. */
export class Outage {
  readonly #maxAge: Millis
  readonly #tell: (told: OutageTold) => void
  #isOn = false

  constructor(maxAge: Millis, tell: (told: OutageTold) => void) {
    this.#maxAge = maxAge
    this.#tell = tell
  }

  /** After each answer of the source: how old the facts are that containers have an identity by. */
  look(isDown: boolean, ages: readonly Millis[]): void {
    const old = isDown ? ages.filter((age) => age > this.#maxAge).length : 0
    // It is over when the source is back, not when those who lived by it have gone.
    if (this.#isOn ? isDown : old === 0) return
    this.#isOn = isDown
    this.#tell({ isOver: !isDown, containers: isDown ? old : ages.length })
  }
}
