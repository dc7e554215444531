/** A caller of another uid who floods the agent when told to. Only root can start one. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** The flooding process. */
export interface Flood {
  /** Opens all connections at once; the agent refuses those above its limit. */
  open(): void
  close(): void
  stop(): void
}

/** Starts the process; it has its uid when this resolves. */
export async function startFlood(socket: string, connections: number): Promise<Flood> {
  const script = fileURLToPath(new URL('flooder.js', import.meta.url))
  const child = fork(script, [socket, String(connections)])
  await once(child, 'message')
  return {
    open: () => child.send('open'),
    close: () => child.send('close'),
    stop: () => child.kill(),
  }
}
