/** What every parser promises: an answer or a Fault, never another error. */
import { Fault } from '../../src/base/fault.ts'

/** The answer of `parse`, or the Fault that it throws; anything else that is thrown fails the test. */
export function guarded<T>(parse: () => T): T | Fault {
  try {
    return parse()
  } catch (error) {
    if (error instanceof Fault && error.reason !== 'bug') return error
    throw error
  }
}
