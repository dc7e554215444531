/** Server streams whose messages are full states: a slow reader gets only the newest. */
import type { Fault } from '../base/fault.ts'
import type { Call } from './call.ts'
import type { Stream } from './grpc.ts'
import type { Message, Method } from './messages.ts'

/**
 * A reader that does not read costs one message on its way and one that waits, the newest. Nothing older is queued: the
 * keys of a replaced SVID are wiped after a while, and a message that left later would carry zeros.
 */
export function newestOnly(call: Call, method: Method, end: (fault: Fault) => void): Stream {
  let waiting: Message | undefined
  let isWriting = false
  const send = (message: Message) => {
    if (call.isClosed) return
    if (isWriting) {
      waiting = message
      return
    }
    isWriting = true
    call.write(method.responseSerialize(message), () => {
      isWriting = false
      const next = waiting
      waiting = undefined
      if (next) send(next)
    })
  }
  return { send, end, onClose: (then) => call.onClose(then) }
}
