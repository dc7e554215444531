/** Lua scripts by their hash: one round trip, and one more when the server has forgotten them. */
import { hash } from 'node:crypto'
import { RedisError, type Reply } from './resp.ts'

export interface Script {
  readonly text: string
  readonly sha: string
}

type Call = (parts: readonly (string | number)[]) => Promise<Reply>

export function scriptOf(text: string): Script {
  // The name that Redis gives scripts; nothing rests on it.
  return { text, sha: hash('sha1', text) }
}

/** Runs `script` atomically; throws what `call` throws. */
export async function runScript(
  call: Call,
  script: Script,
  keys: readonly string[],
  args: readonly (string | number)[],
): Promise<Reply> {
  const rest = [keys.length, ...keys, ...args]
  try {
    return await call(['EVALSHA', script.sha, ...rest])
  } catch (error) {
    if (!(error instanceof RedisError) || error.code !== 'NOSCRIPT') throw error
    return await call(['EVAL', script.text, ...rest])
  }
}
