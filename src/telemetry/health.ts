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
  readonly #watchers = new Set<() => void>()

  /** Not ready until `done` is called with the same name. */
  begin(name: string): void {
    if (this.#pending.has(name)) return
    this.#pending.add(name)
    this.#tell()
  }

  done(name: string): void {
    if (this.#pending.delete(name)) this.#tell()
  }

  get ready(): boolean {
    return this.#pending.size === 0
  }

  get pending(): readonly string[] {
    return [...this.#pending]
  }

  /** Adds a degradation, or replaces the one of the same code. */
  degrade(degradation: Degradation): void {
    const known = this.#degraded.get(degradation.code)
    if (known?.message === degradation.message && known.action === degradation.action) return
    this.#degraded.set(degradation.code, degradation)
    this.#tell()
  }

  recover(code: string): void {
    if (this.#degraded.delete(code)) this.#tell()
  }

  get degraded(): readonly Degradation[] {
    return [...this.#degraded.values()]
  }

  /** Calls `watcher` on each change of readiness or degradation until the returned function is called. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
    }
  }

  #tell(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }
}
