/** Callers in Python: its processes are small, and one can leave its connection to a child. */
import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { promisify } from 'node:util'

const WITHIN = 300_000
const run = promisify(execFile)

export const NO_PYTHON = 'python3 is not installed'

/** What `script` of this directory prints; undefined on a machine without Python. */
export async function runPython(script: string, args: readonly string[]): Promise<string | undefined> {
  try {
    const { stdout } = await run('python3', [resolve('test/bench', script), ...args], { timeout: WITHIN })
    return stdout.trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
