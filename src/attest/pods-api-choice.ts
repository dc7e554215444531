/** Which way of asking a kubelet an agent with `attestor: auto` has: decided once, at its start. */
import { connect } from 'node:net'
import { Fault } from '../base/fault.ts'
import { trustedSocket } from './pods-api-trouble.ts'

/** Why the Pods API is not the one; undefined where it is. Takes no longer than a connect to a unix socket. */
export async function whyNotPodsApi(socket: string): Promise<string | undefined> {
  try {
    trustedSocket(socket)
  } catch (error) {
    return Fault.from(error).message
  }
  // The socket of a kubelet that had the feature, and has it no more, stays on the disk.
  return (await isListening(socket)) ? undefined : `nobody listens on ${socket}`
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
