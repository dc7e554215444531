/** HTTP/1.1 answers that wait behind others on their connection (RFC 9112 s.9.3.2). */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

const waiting = new WeakMap<Socket, Set<ServerResponse>>()

/** Has `response` say `close` when its connection closes: Node tells only the one whose turn it is. */
export function closeWithConnection({ socket }: IncomingMessage, response: ServerResponse): void {
  const all = waiting.get(socket) ?? watch(socket)
  all.add(response)
  response.once('close', () => all.delete(response))
}

function watch(socket: Socket): Set<ServerResponse> {
  const all = new Set<ServerResponse>()
  waiting.set(socket, all)
  socket.once('close', () => {
    for (const response of [...all]) if (!response.socket) response.emit('close')
  })
  return all
}
