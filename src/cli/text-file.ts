/** Files that a person names on the command line, read as text. */
import { readFileSync } from 'node:fs'
import { Fault } from '../base/fault.ts'

/** The text of `file`; throws usage, with `action`, when it cannot be read, and when it is over `limit` characters. */
export function readTextFile(file: string, limit: number, action: string): string {
  try {
    const text = readFileSync(file, 'utf8')
    if (text.length <= limit) return text
  } catch (error) {
    throw new Fault('usage', `${file}: cannot be read`, { action, cause: error })
  }
  throw new Fault('usage', `${file} is over ${limit} bytes`)
}
