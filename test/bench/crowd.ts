/** A crowd of callers in processes of their own, which hold their connections and count what comes on each. */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** Connections that are held open by children. */
export interface Crowd {
  /** performance.now() of this process when the last stream had `count` messages since the last call. */
  arrived(count: number): Promise<number>
  /** Closes all connections and ends the children. */
  leave(): Promise<void>
}

/** What a member says: messages on all its streams so far, and connections that have ended. */
export interface Told {
  readonly messages: number
  readonly lost: number
}

const MEMBERS = 4
const WITHIN = 60_000

/** Opens `size` connections at once and holds them; messages are counted from here on. */
export function gather(socket: string, size: number): Crowd {
  const each = Math.ceil(size / MEMBERS)
  const script = fileURLToPath(new URL('crowd-member.js', import.meta.url))
  const children = Array.from({ length: MEMBERS }, () => fork(script, [socket, String(each)]))
  const told = new Map<ChildProcess, Told>()
  let look = () => {}
  for (const child of children)
    child.on('message', (news: Told) => {
      told.set(child, news)
      look()
    })
  let wanted = 0
  return {
    arrived: (count) => {
      wanted += count * each
      return new Promise((resolve, reject) => {
        const timer = setTimeout(
          () => reject(new Error(`of ${wanted} came ${JSON.stringify([...told.values()])}`)),
          WITHIN,
        )
        look = () => {
          if (!children.every((child) => (told.get(child)?.messages ?? 0) >= wanted)) return
          look = () => {}
          clearTimeout(timer)
          resolve(performance.now())
        }
        look()
      })
    },
    leave: async () => {
      const exits = children.map((child) => new Promise((resolve) => child.once('exit', resolve)))
      for (const child of children) child.kill()
      await Promise.all(exits)
    },
  }
}
