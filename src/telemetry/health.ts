/** What keeps the agent from being ready, and what it has but should not have: each with a cure. */

/** One thing that is wrong but does not stop the agent. */
export interface Degradation {
  /** Stable, documented: `policy_reload`, `hardening_dumpable`, `pidfd_missing`. */
  readonly code: string
  readonly message: string
  readonly action: string
}

/** Readiness is a set of names given back; degradations come and go. */
export class Health {
  readonly #pending = new Set<string>()
  readonly #degraded = new Map<string, Degradation>()

  /** Not ready until `done` is called with the same name. */
  begin(name: string): void {
    this.#pending.add(name)
  }

  done(name: string): void {
    this.#pending.delete(name)
  }

  get ready(): boolean {
    return this.#pending.size === 0
  }

  get pending(): readonly string[] {
    return [...this.#pending]
  }

  degrade(degradation: Degradation): void {
    this.#degraded.set(degradation.code, degradation)
  }

  recover(code: string): void {
    this.#degraded.delete(code)
  }

  get degraded(): readonly Degradation[] {
    return [...this.#degraded.values()]
  }
}
