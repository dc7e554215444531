/** What no code of the process under test has caught while a test of this file ran. */
import { afterEach, beforeEach } from 'vitest'

/** The errors that escaped during the test under way; to be called once, at the top of a file. */
export function watchEscapes(): readonly unknown[] {
  const escaped: unknown[] = []
  const keep = (error: unknown) => void escaped.push(error)
  beforeEach(() => {
    escaped.length = 0
    process.on('uncaughtException', keep)
    process.on('unhandledRejection', keep)
  })
  afterEach(() => {
    process.off('uncaughtException', keep)
    process.off('unhandledRejection', keep)
  })
  return escaped
}
