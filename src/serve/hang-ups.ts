/**
 * Connections whose client has gone and that nobody closes: after an error of its own side Node's HTTP/2 stops reading, and
 * never learns of the end. The kernel knows: every few seconds it is asked about all of them at once.
 */
import type { Socket } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'
import { hungUp } from '../base/native.ts'
import { fdOf } from './fd.ts'

const SWEEP_EVERY: Millis = 5_000

/** Closes what was watched and is found hung up twice in a row: once, Node may be about to read its end. */
export class HangUps {
  readonly #clock: Clock
  readonly #sockets = new Set<Socket>()
  #found: ReadonlySet<Socket> = new Set()
  #cancel: (() => void) | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Watches `socket` until it closes. */
  watch(socket: Socket): void {
    this.#sockets.add(socket)
    socket.once('close', () => this.#forget(socket))
    this.#cancel ??= this.#clock.after(SWEEP_EVERY, () => this.#sweep())
  }

  #forget(socket: Socket): void {
    this.#sockets.delete(socket)
    if (this.#sockets.size > 0) return
    this.#cancel?.()
    this.#cancel = undefined
  }

  #sweep(): void {
    this.#cancel = this.#clock.after(SWEEP_EVERY, () => this.#sweep())
    const open = [...this.#sockets].flatMap((socket) => {
      const fd = fdOf(socket)
      return fd === undefined ? [] : [{ socket, fd }]
    })
    const gone = hungUp(open.map(({ fd }) => fd)).flatMap((at) => open[at]?.socket ?? [])
    for (const socket of gone) if (this.#found.has(socket)) socket.destroy()
    this.#found = new Set(gone)
  }
}
