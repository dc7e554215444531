/**
 * Requests at a steady rate, each begun when it is due, whether or not those before it are over: as few words of HTTP/1.1
 * as a server takes, so that what sends them costs next to nothing beside what is measured.
 */
import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'

const END = '\r\n\r\n'

/** Sends to one listener, on as many connections as it needs at once. */
export class PacedClient {
  readonly #port: number
  readonly #request: string
  /** What each answer has to say. */
  readonly #wanted: string
  readonly #idle: Socket[] = []
  readonly #all = new Set<Socket>()

  constructor(port: number, path: string, wanted: string) {
    this.#port = port
    this.#request = `GET ${path} HTTP/1.1\r\nHost: localhost${END}`
    this.#wanted = wanted
  }

  /** The time of each request in ms, `perSecond` for `length` ms; throws when one is answered wrongly. */
  async run(perSecond: number, length: number): Promise<readonly number[]> {
    const times: Promise<number>[] = []
    let failure: unknown
    const note = (error: unknown) => {
      failure ??= error
      return Number.NaN
    }
    const start = performance.now()
    for (let due = 0; due < (length / 1_000) * perSecond; await wait(1)) {
      const now = ((performance.now() - start) / 1_000) * perSecond
      for (; due < now; due += 1) times.push(this.#send().catch(note))
    }
    const all = await Promise.all(times)
    if (failure) throw failure
    return all
  }

  close(): void {
    for (const socket of this.#all) socket.destroy()
  }

  async #send(): Promise<number> {
    const socket = this.#idle.pop() ?? (await this.#open())
    const began = performance.now()
    socket.write(this.#request)
    const answer = await this.#answer(socket)
    const took = performance.now() - began
    this.#idle.push(socket)
    if (!answer.startsWith('HTTP/1.1 200') || !answer.includes(this.#wanted)) throw new Error(answer)
    return took
  }

  /** Answers have no body. */
  #answer(socket: Socket): Promise<string> {
    return new Promise((resolve, reject) => {
      let text = ''
      const take = (chunk: Buffer) => {
        text += chunk.toString('latin1')
        if (!text.endsWith(END)) return
        socket.off('data', take)
        socket.off('close', fail)
        resolve(text)
      }
      const fail = () => reject(new Error('the connection has closed'))
      socket.on('data', take)
      socket.once('close', fail)
    })
  }

  async #open(): Promise<Socket> {
    const socket = connect(this.#port, '127.0.0.1')
    socket.setNoDelay(true)
    this.#all.add(socket)
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return socket
  }
}
