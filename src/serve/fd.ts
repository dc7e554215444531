/** The descriptor of a socket: Node has no public way to it, so whatever is not a number counts as none. */
import type { Server, Socket } from 'node:net'

/** The file descriptor of a socket; undefined when Node does not show it, and then nobody is attested. */
export function fdOf(socket: Socket | Server): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  return typeof fd === 'number' && Number.isInteger(fd) && fd >= 0 ? fd : undefined
}
