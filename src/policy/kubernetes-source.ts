/** Policy of a cluster: its custom resources as they are at the API server, joined with policy files whenever they change. */
import type { Clock, Millis, Seconds } from '../base/clock.ts'
import type { Fault } from '../base/fault.ts'
import { ClusterHttps } from '../cluster/https.ts'
import { Reflector } from '../cluster/reflector.ts'
import { type ClusterJoin, ClusterMemory, type ObjectReport } from './kubernetes-book.ts'
import { isOurs } from './kubernetes-class.ts'
import {
  API_VERSION,
  keyOf,
  type ObjectKind,
  PLURALS,
  parseNamespace,
  parseObject,
} from './kubernetes-object.ts'
import { StatusWriter } from './kubernetes-status.ts'
import type { PolicyContext, Statements } from './statements.ts'

export interface ClusterSourceOptions {
  /** `https://HOST:PORT` of the API server. */
  readonly url: string
  readonly caFile: string
  readonly tokenFile: string
  readonly clock: Clock
  /** How long what was last seen counts without the API server. */
  readonly maxAge: Seconds
  /** Objects of another class are somebody else's; those without one are ours when `isDefault`. */
  readonly className: string
  readonly isDefaultClass: boolean
  /** Whether every label of a pod is a selector. */
  readonly allLabels: boolean
  readonly writesStatus: boolean
}

/** Who hears of the cluster. */
export interface ClusterListener {
  /** What is stated has changed, or counts no more: policy is to be loaded again. */
  onChange(): void
  onFault(fault: Fault | undefined): void
  onReports(reports: readonly ObjectReport[]): void
}

const LIST_TIMEOUT: Millis = 30_000
/** Bookmarks come about once a minute. */
const WATCH_TIMEOUT: Millis = 150_000
/** Bursts, such as `kubectl apply` of a directory, become one load. */
const SETTLE: Millis = 200
const MILLIS = 1000
const KINDS = Object.keys(PLURALS) as readonly ObjectKind[]

/** See above. One reader: whoever loads policy asks `join`. */
export class ClusterPolicySource {
  readonly #options: ClusterSourceOptions
  readonly #memory = new ClusterMemory()
  readonly #kinds: readonly Reflector<NonNullable<ReturnType<typeof parseObject>>>[]
  readonly #namespaces: Reflector<NonNullable<ReturnType<typeof parseNamespace>>>
  readonly #https: readonly ClusterHttps[]
  readonly #status: StatusWriter | undefined
  readonly #waiting = new Set<() => void>()
  #listener: ClusterListener | undefined
  #reports: readonly ObjectReport[] = []
  #cancelSettle: (() => void) | undefined
  #cancelLook = () => {}
  #told: string | undefined
  #fault: Fault | undefined

  /** Throws config_invalid for a URL that is none. */
  constructor(options: ClusterSourceOptions) {
    this.#options = options
    const { clock, url, caFile, tokenFile } = options
    const server = {
      name: 'the API server',
      url,
      verification: { kind: 'cluster-ca', file: caFile },
      tokenFile,
      clock,
    } as const
    const https = new ClusterHttps({ ...server, timeout: LIST_TIMEOUT })
    const watching = new ClusterHttps({ ...server, timeout: WATCH_TIMEOUT })
    this.#https = [https, watching]
    const common = {
      https,
      watching,
      clock,
      onChange: () => this.#settle(),
      onFault: (fault: Fault | undefined) => this.#onFault(fault),
    }
    this.#kinds = KINDS.map(
      (kind) =>
        new Reflector({ ...common, path: `/apis/${API_VERSION}/${PLURALS[kind]}`, parse: parseObject }),
    )
    this.#namespaces = new Reflector({ ...common, path: '/api/v1/namespaces', parse: parseNamespace })
    this.#status = options.writesStatus ? new StatusWriter(https) : undefined
  }

  start(): void {
    for (const each of [...this.#kinds, this.#namespaces]) each.start()
    this.#look()
  }

  /** Resolves when all has been seen once, or after `limit`: whether it was. */
  seen(limit: Millis): Promise<boolean> {
    if (this.#isWhole) return Promise.resolve(true)
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(done)
        cancel()
        resolve(this.#isWhole)
      }
      const cancel = this.#options.clock.after(limit, done)
      this.#waiting.add(done)
    })
  }

  /** Tells `listener` from now on, and at once what it should know already. */
  attach(listener: ClusterListener): void {
    this.#listener = listener
    listener.onReports(this.#reports)
    listener.onFault(this.#fault)
  }

  async join(files: readonly Statements[], context: PolicyContext): Promise<ClusterJoin> {
    const { allLabels } = this.#options
    const condition = this.#condition
    this.#told = condition
    const objects = this.#kinds
      .flatMap((kind) => kind.items ?? [])
      .filter((object) => isOurs(object, this.#options))
    const namespaces = new Map(this.#namespaces.items?.map(({ name, labels }) => [name, labels]))
    const state = { objects, namespaces, condition } as const
    const joined = await this.#memory.join(files, state, { ...context, namespaces, allLabels })
    this.#reports = joined.reports
    this.#listener?.onReports(joined.reports)
    void this.#status?.write(joined.reports)
    return joined
  }

  stop(): void {
    this.#cancelLook()
    this.#cancelSettle?.()
    for (const each of [...this.#kinds, this.#namespaces]) each.stop()
    for (const each of this.#https) each.close()
  }

  get #isWhole(): boolean {
    return [...this.#kinds, this.#namespaces].every(({ items }) => items !== undefined)
  }

  get #condition(): 'current' | 'unread' | 'expired' {
    if (!this.#isWhole) return 'unread'
    const oldest = Math.min(...[...this.#kinds, this.#namespaces].map(({ heard }) => heard))
    return this.#options.clock.monotonic() - oldest > this.#options.maxAge * MILLIS ? 'expired' : 'current'
  }

  readonly #look = (): void => {
    this.#cancelLook = this.#options.clock.after(MILLIS, this.#look)
    if (this.#told !== undefined && this.#told !== this.#condition) this.#settle()
  }

  #settle(): void {
    if (this.#isWhole) for (const done of [...this.#waiting]) done()
    this.#cancelSettle ??= this.#options.clock.after(SETTLE, () => {
      this.#cancelSettle = undefined
      this.#listener?.onChange()
    })
  }

  #onFault(fault: Fault | undefined): void {
    if (fault?.message === this.#fault?.message) return
    this.#fault = fault
    this.#listener?.onFault(fault)
  }
}

/** The objects that are not in force as they stand, for messages: `Grant shop/orders: …`. */
export function refusedTexts(reports: readonly ObjectReport[]): readonly string[] {
  return reports
    .filter(({ isAccepted }) => !isAccepted)
    .map(({ object, message }) => `${keyOf(object)}: ${message}`)
}
