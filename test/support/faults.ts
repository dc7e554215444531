/** Asks a call for its Fault: tests compare reason and message, never a stack. */
import { Fault } from '../../src/base/fault.ts'

/** `reason: message` of the Fault that `call` throws; what else it does is an error of the test. */
export function faultOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    if (error instanceof Fault) return `${error.reason}: ${error.message}`
    throw error
  }
  throw new Error('nothing was thrown')
}
