/** One call of the Workload API over gRPC: the first message of a stream, or the answer of a unary call. */
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import {
  type Ending,
  loadServices,
  type Message,
  type StreamMethod,
  type UnaryMethod,
} from '../client/grpc.ts'
import { type Where, workloadSocket } from './agent.ts'
import type { Io } from './io.ts'

const TIMEOUT_MS: Millis = 10_000

/** The first message of `method`; throws the agent's Fault, deadline. */
export async function firstMessage(method: StreamMethod, where: Where, io: Io): Promise<Message> {
  const connection = loadServices()(await workloadSocket(where, io))
  let cancel = () => {}
  try {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(slow()), TIMEOUT_MS)
      const call = connection.open(method, { onMessage: resolve, onEnd: ({ fault }) => reject(fault) }, {})
      cancel = () => {
        clearTimeout(timer)
        call.cancel()
      }
    })
  } finally {
    cancel()
    connection.close()
  }
}

/** The answer of `method`; throws as firstMessage. */
export async function answerOf(
  method: UnaryMethod,
  request: Message,
  where: Where,
  io: Io,
): Promise<Message> {
  const connection = loadServices()(await workloadSocket(where, io))
  try {
    return await connection.unary(method, request, { timeout: TIMEOUT_MS })
  } catch (ending) {
    throw isEnding(ending) ? ending.fault : Fault.from(ending)
  } finally {
    connection.close()
  }
}

function isEnding(value: unknown): value is Ending {
  return typeof value === 'object' && value !== null && 'fault' in value && value.fault instanceof Fault
}

function slow(): Fault {
  return new Fault('deadline', `the agent did not answer within ${TIMEOUT_MS / 1000} s`, {
    action: 'See `holdfast check`; the agent may be stopped or overloaded.',
  })
}
