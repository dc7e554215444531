/**
 * SHA-256 of programs, for `unix:sha256`: in one thread, bounded in size and time, remembered for as long as the file
 * stays the same. A file system that hangs costs that thread, never the agent's loop. Those who wait take turns by owner.
 */
import { Worker } from 'node:worker_threads'
import type { Clock, Millis } from '../base/clock.ts'
import { HashQueue } from './hash-queue.ts'
import { HASH_WORKER, type HashAnswer, type HashFailure, type HashJob } from './hash-worker.ts'
import type { Kernel } from './kernel.ts'
import type { Owner } from './owner.ts'
import type { Program } from './peer.ts'

/** The hash, in lower-case hex, or why there is none. */
export type ProgramHash = { readonly sha256: string } | { readonly failure: HashFailure }

export interface HasherOptions {
  readonly clock: Clock
  readonly kernel: Kernel
  /** From the question to the answer, waiting included. */
  readonly deadline?: Millis
  readonly maxBytes?: number
  /** Where the program of a process is read; `/proc/PID/exe`. */
  readonly linkOf?: (pid: number) => string
}

interface Waiting {
  readonly owner: Owner
  readonly job: HashJob
  readonly key: string
  readonly finish: (result: ProgramHash) => void
}

const CACHE_LIMIT = 1_024
const STUCK_LIMIT = 4
const IDLE: Millis = 10_000
/** What the same file would answer again. */
const LASTING: ReadonlySet<HashFailure> = new Set(['too_large', 'file_system'])

/** Whether asking again may give another answer. */
export function mayChange(hash: ProgramHash): boolean {
  return 'failure' in hash && !LASTING.has(hash.failure)
}

/** Hashes programs; equal questions at one time share one answer. */
export class Hasher {
  readonly #clock: Clock
  readonly #kernel: Kernel
  readonly #deadline: Millis
  readonly #maxBytes: number
  readonly #linkOf: (pid: number) => string
  readonly #cache = new Map<string, ProgramHash>()
  readonly #flights = new Map<string, Promise<ProgramHash>>()
  readonly #queue = new HashQueue<Waiting>()
  /** Owners of files that a thread has not come back from. */
  readonly #stuckOwners = new Set<Owner>()
  #current: Waiting | undefined
  #worker: Worker | undefined
  #stuck = 0
  #sequence = 0
  #cancelIdle = () => {}

  constructor(options: HasherOptions) {
    this.#clock = options.clock
    this.#kernel = options.kernel
    this.#deadline = options.deadline ?? 2_000
    this.#maxBytes = options.maxBytes ?? 512 * 1024 * 1024
    this.#linkOf = options.linkOf ?? ((pid) => `/proc/${pid}/exe`)
  }

  /**
   * The hash of the program that `pid` runs: at once when it is known, else a promise that never rejects. `owner`
   * answers for how much is asked.
   */
  hash(pid: number, program: Program, owner: Owner): ProgramHash | Promise<ProgramHash> {
    const path = this.#linkOf(pid)
    const version = this.#kernel.fileVersion(path)
    if (version === undefined) return { failure: 'unreadable' }
    const { device, inode } = program.identity
    const key = `${device} ${inode} ${version}`
    const known = this.#cache.get(key)
    if (known) {
      this.#remember(key, known)
      return known
    }
    const job = { id: ++this.#sequence, path, device, inode: `${inode}`, version }
    return this.#flights.get(key) ?? this.#fly(key, owner, job)
  }

  stop(): void {
    this.#cancelIdle()
    for (const waiting of [...this.#queue.clear(), this.#current]) waiting?.finish({ failure: 'deadline' })
    void this.#worker?.terminate()
    this.#worker = undefined
  }

  #fly(
    key: string,
    owner: Owner,
    file: Omit<HashJob, 'maxBytes' | 'maxMillis'>,
  ): ProgramHash | Promise<ProgramHash> {
    const isStuck = this.#stuck >= STUCK_LIMIT || this.#stuckOwners.has(owner)
    if (isStuck || !this.#queue.hasRoom(owner)) return { failure: 'deadline' }
    const job = { ...file, maxBytes: this.#maxBytes, maxMillis: this.#deadline }
    const flight = new Promise<ProgramHash>((resolve) => {
      const waiting: Waiting = {
        owner,
        job,
        key,
        finish: (result) => this.#finish(waiting, cancel, resolve, result),
      }
      const cancel = this.#clock.after(this.#deadline, () => this.#giveUp(waiting))
      this.#queue.add(waiting)
    })
    this.#flights.set(key, flight)
    this.#next()
    return flight
  }

  #finish(
    waiting: Waiting,
    cancel: () => void,
    resolve: (result: ProgramHash) => void,
    result: ProgramHash,
  ): void {
    cancel()
    this.#flights.delete(waiting.key)
    if (this.#current === waiting) this.#current = undefined
    if ('sha256' in result || LASTING.has(result.failure)) this.#remember(waiting.key, result)
    resolve(result)
  }

  #remember(key: string, result: ProgramHash): void {
    this.#cache.delete(key)
    const oldest = this.#cache.size >= CACHE_LIMIT ? this.#cache.keys().next().value : undefined
    if (oldest !== undefined) this.#cache.delete(oldest)
    this.#cache.set(key, result)
  }

  #next(): void {
    this.#cancelIdle()
    if (this.#current) return
    this.#current = this.#queue.next()
    if (this.#current) this.#open().postMessage(this.#current.job)
    else this.#cancelIdle = this.#clock.after(IDLE, () => this.#retire())
  }

  #open(): Worker {
    if (this.#worker) return this.#worker
    const worker = new Worker(HASH_WORKER, { eval: true, execArgv: [], env: {}, name: 'holdfast-hash' })
    worker.unref()
    worker.on('message', (answer: HashAnswer) => this.#take(answer))
    worker.on('error', () => this.#lose(worker))
    this.#worker = worker
    return worker
  }

  #take(answer: HashAnswer): void {
    if (this.#current?.job.id !== answer.id) return
    this.#current.finish(answer)
    this.#next()
  }

  /** The thread itself failed: whoever waits for it gets no hash, the next job gets a new thread. */
  #lose(worker: Worker): void {
    if (this.#worker !== worker) return
    this.#worker = undefined
    this.#current?.finish({ failure: 'unreadable' })
    this.#next()
  }

  #giveUp(waiting: Waiting): void {
    this.#queue.delete(waiting)
    const isCurrent = this.#current === waiting
    waiting.finish({ failure: 'deadline' })
    if (!isCurrent) return
    this.#retire(waiting.owner)
    this.#next()
  }

  /** A thread inside a system call that hangs cannot be ended; it counts until it is. */
  #retire(owner?: Owner): void {
    const worker = this.#worker
    if (!worker) return
    this.#worker = undefined
    this.#stuck += 1
    if (owner !== undefined) this.#stuckOwners.add(owner)
    void worker.terminate().then(() => {
      this.#stuck -= 1
      if (owner !== undefined) this.#stuckOwners.delete(owner)
    })
  }
}
