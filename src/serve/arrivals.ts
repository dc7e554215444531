/**
 * Connections as they arrive at a unix socket. libuv takes one in each turn of the event loop: who connects and leaves as
 * fast as a process can keeps the queue full, and nobody else gets in. So all that wait are taken, by accept4(2), and
 * those that are refused cost no more than that.
 */
import { createServer, type ListenOptions, type Server, Socket } from 'node:net'
import { Fault } from '../base/fault.ts'
import { acceptWaiting, anotherFd, closeFd } from '../base/native.ts'
import { fdOf } from './fd.ts'

/** Taken in one turn beside libuv's own: others have their turn too. */
const AT_ONCE = 64

/** As a server makes its own; `pauseOnCreate` is what it does for `pauseOnConnect`. */
const PAUSED = { readable: true, writable: true, allowHalfOpen: false, pauseOnCreate: true }

/** A connection of which nothing has been read. */
export interface Arrival {
  readonly fd: number
  /** Node's socket of it, paused. `isBulk`: long bodies come, and go on as they are read, uncopied. */
  open(isBulk: boolean): Socket
  refuse(): void
}

export type Accept = (arrival: Arrival) => void

/** Listens; throws socket_unusable. */
export function listen(
  where: ListenOptions | { readonly fd: number },
  path: string,
  accept: Accept,
): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: false }, (socket) => {
      const shown = fdOf(socket)
      const fd = shown === undefined ? undefined : anotherFd(shown)
      socket.destroy()
      if (fd !== undefined) accept(arrivalOf(fd))
      takeWaiting(server, accept)
    })
    server.once('error', (error) =>
      reject(new Fault('socket_unusable', `${path} cannot be listened on`, { cause: error })),
    )
    server.listen(where, () => resolve(server))
  })
}

function takeWaiting(server: Server, accept: Accept): void {
  const listening = fdOf(server)
  if (listening === undefined) return
  for (let left = AT_ONCE; left > 0; left -= 1) {
    const fd = acceptWaiting(listening)
    if (fd === undefined) return
    accept(arrivalOf(fd))
  }
}

function arrivalOf(fd: number): Arrival {
  let socket: Socket | undefined
  return {
    fd,
    open: (isBulk) => {
      socket = isBulk ? new Socket({ ...PAUSED, fd }) : sharing(fd)
      return socket
    },
    refuse: () => {
      if (socket) socket.destroy()
      else closeFd(fd)
    },
  }
}

/** What the kernel has is read into it, for all connections in turn, and copied out at once. */
const READ = Buffer.allocUnsafeSlow(64 * 1024)

/**
 * Else a socket gets a new buffer of 64 KiB for each read, of which a call takes some hundred bytes: 6 µs, and most of the
 * agent's garbage.
 */
function sharing(fd: number): Socket {
  const take = (length: number) => {
    const octets = Buffer.from(READ.subarray(0, length))
    if (!socket.readableFlowing || socket.readableLength > 0) return socket.push(octets)
    socket.emit('data', octets)
    return true
  }
  const options = { ...PAUSED, fd, onread: { buffer: READ, callback: take } }
  const socket = new Socket(options)
  return socket
}
