/**
 * One collection of the API server, kept as it is there: listed whole, then watched. A list that fails or is cut off
 * changes nothing; what was last seen stays until its owner gives it up.
 */
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { membersOf } from '../base/members.ts'
import type { ClusterHttps } from './https.ts'

export interface ReflectorOptions<T> {
  /** For lists. */
  readonly https: ClusterHttps
  /** For watches: its timeout is longer than the silence between two bookmarks. */
  readonly watching: ClusterHttps
  /** The collection, such as `/api/v1/namespaces`. */
  readonly path: string
  readonly clock: Clock
  /** What is kept of an object; undefined leaves it out. */
  readonly parse: (object: unknown) => T | undefined
  /** After each change of what is kept, and after each whole list. */
  readonly onChange: () => void
  /** Hears of each failure, and of undefined when all is well again. */
  readonly onFault: (fault: Fault | undefined) => void
  readonly random?: () => number
}

const PAGE = 500
const ITEMS_LIMIT = 50_000
const LIST_BYTES = 64 * 1024 * 1024
const LINE_BYTES = 4 * 1024 * 1024
/** How long one watch lasts; the API server ends it then (seconds). */
const WATCH = 120
const RETRY_BASE: Millis = 500
const RETRY_MAX: Millis = 30_000

/** States: listing, watching, waiting after a failure; stopped, which is for good. */
export class Reflector<T> {
  readonly #options: ReflectorOptions<T>
  readonly #ending = new AbortController()
  #items: ReadonlyMap<string, T> | undefined
  #heard: Millis = Number.NEGATIVE_INFINITY
  #failures = 0

  constructor(options: ReflectorOptions<T>) {
    this.#options = options
  }

  /** Undefined until the first list was whole. */
  get items(): readonly T[] | undefined {
    return this.#items && [...this.#items.values()]
  }

  /** When the API server last confirmed it (monotonic milliseconds). */
  get heard(): Millis {
    return this.#heard
  }

  start(): void {
    void this.#run()
  }

  stop(): void {
    this.#ending.abort(new Fault('canceled'))
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending
    while (!signal.aborted) {
      try {
        let version: string | undefined = await this.#list()
        while (version !== undefined && !signal.aborted) {
          const begun = this.#options.clock.monotonic()
          version = await this.#watch(version)
          // A server that ends each watch at once is not asked in a circle.
          if (this.#options.clock.monotonic() - begun < RETRY_BASE) await this.#rest()
        }
      } catch (error) {
        if (signal.aborted) return
        this.#options.onFault(Fault.from(error, 'cluster_unavailable'))
        await this.#rest()
      }
    }
  }

  /** The wait before the next list: longer with each failure in a row. */
  #rest(): Promise<void> {
    const { clock, random } = this.#options
    const wait = backoff(this.#failures, RETRY_BASE, RETRY_MAX, random)
    this.#failures += 1
    return new Promise((resolve) => {
      const done = () => {
        cancel()
        resolve()
      }
      const cancel = clock.after(wait, done)
      this.#ending.signal.addEventListener('abort', done, { once: true })
    })
  }

  /** All pages at one version, which a watch goes on from. */
  async #list(): Promise<string> {
    const { https, path } = this.#options
    const found = new Map<string, T>()
    let rest = ''
    for (;;) {
      const query = `limit=${PAGE}${rest === '' ? '' : `&continue=${encodeURIComponent(rest)}`}`
      const page = membersOf(
        await https.json(`${path}?${query}`, { maxBytes: LIST_BYTES, signal: this.#ending.signal }),
      )
      const { resourceVersion, continue: next = '' } = membersOf(page['metadata'])
      const items = page['items'] ?? []
      if (!Array.isArray(items) || typeof resourceVersion !== 'string') throw this.#odd('a list that is none')
      for (const item of items) this.#put(found, item)
      if (typeof next !== 'string' || next === '') {
        this.#items = found
        this.#confirm()
        this.#options.onChange()
        return resourceVersion
      }
      rest = next
    }
  }

  /** Follows changes from `from` on; the version to go on from, or undefined when it is too old for the API server. */
  async #watch(from: string): Promise<string | undefined> {
    const { watching, path } = this.#options
    let version = from
    const query = `watch=1&allowWatchBookmarks=true&timeoutSeconds=${WATCH}&resourceVersion=${encodeURIComponent(from)}`
    const ask = { maxBytes: LINE_BYTES, signal: this.#ending.signal }
    for await (const line of watching.lines(`${path}?${query}`, ask)) {
      const { type, object } = this.#parseEvent(line)
      if (type === 'ERROR') {
        const { code, reason } = membersOf(object)
        if (code === 410) return undefined
        throw this.#odd(`${code} ${reason}`)
      }
      const next = membersOf(membersOf(object)['metadata'])['resourceVersion']
      if (typeof next !== 'string') throw this.#odd('an event without a version')
      version = next
      this.#confirm()
      if (type !== 'BOOKMARK') this.#apply(type, object)
    }
    this.#confirm()
    return version
  }

  #parseEvent(line: string): { readonly type: unknown; readonly object: unknown } {
    try {
      const { type, object } = membersOf(JSON.parse(line))
      return { type, object }
    } catch {
      throw this.#odd('a line that is not JSON')
    }
  }

  #apply(type: unknown, object: unknown): void {
    const items = new Map(this.#items)
    if (type === 'DELETED') items.delete(nameOf(object))
    else if (type === 'ADDED' || type === 'MODIFIED') this.#put(items, object)
    else throw this.#odd('an event of an unknown type')
    this.#items = items
    this.#options.onChange()
  }

  #put(items: Map<string, T>, object: unknown): void {
    const name = nameOf(object)
    const parsed = this.#options.parse(object)
    if (parsed === undefined) items.delete(name)
    else items.set(name, parsed)
    if (items.size > ITEMS_LIMIT) throw this.#odd(`over ${ITEMS_LIMIT} objects`)
  }

  #confirm(): void {
    this.#heard = this.#options.clock.monotonic()
    if (this.#failures > 0) this.#failures = 0
    this.#options.onFault(undefined)
  }

  #odd(what: string): Fault {
    return new Fault('cluster_unavailable', `the API server answers ${this.#options.path} with ${what}`)
  }
}

function nameOf(object: unknown): string {
  const { namespace = '', name } = membersOf(membersOf(object)['metadata'])
  return `${String(namespace)}/${String(name)}`
}
