/** What can be wrong with the socket of the Pods API and with what answers there, in words. */
import { lstatSync } from 'node:fs'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { membersOf } from '../base/members.ts'
import { trustedPath } from '../base/trusted.ts'

/** gRPC status codes (grpc/doc/statuscodes.md). */
const DEADLINE_EXCEEDED = 4
const RESOURCE_EXHAUSTED = 8
const FAILED_PRECONDITION = 9
const UNIMPLEMENTED = 12
const UNAVAILABLE = 14
/** How the library says that a message is longer than it may be, with the same code as a server that limits rates. */
const TOO_LONG = /larger than max/

/** Throws pod_facts_unavailable unless `path` is a socket that only root, or the agent's own user, can have put there. */
export function trustedSocket(path: string): void {
  try {
    const stats = lstatSync(trustedPath(path))
    if (!stats.isSocket()) throw new Fault('policy_writable', `${path} is no socket`)
    if (stats.uid !== 0 && stats.uid !== process.geteuid?.())
      throw new Fault('policy_writable', `${path} belongs to uid ${stats.uid}, not to root`)
  } catch (error) {
    const { reason, message } = Fault.from(error)
    throw new Fault('pod_facts_unavailable', `the Pods API of the kubelet is not asked: ${message}`, {
      action:
        reason === 'policy_writable'
          ? 'Give the socket and its directory to root, and let nobody else write there.'
          : 'Mount the directory of the socket, and turn on the feature gate PodsAPI of the kubelet: it is off before Kubernetes 1.37.',
    })
  }
}

/** Whether the kubelet has the API, and has just started. */
export function isInitializing(error: unknown): boolean {
  return membersOf(error)['code'] === FAILED_PRECONDITION
}

/** Whether something else listens, or a kubelet that has another version of the API. */
export function isUnimplemented(error: unknown): boolean {
  return membersOf(error)['code'] === UNIMPLEMENTED
}

/** Whether the kubelet has had too many requests, of all its callers together. */
export function isRateLimit(error: unknown): boolean {
  const { code, details } = membersOf(error)
  return code === RESOURCE_EXHAUSTED && !TOO_LONG.test(String(details))
}

export interface PodsApiBounds {
  readonly timeout: Millis
  readonly maxBytes: number
}

/** pod_facts_unavailable with what a call ended with. */
export function podsApiFault(error: unknown, bounds: PodsApiBounds): Fault {
  if (error instanceof Fault) return error
  const [message, action] = wordsFor(error, bounds)
  return new Fault('pod_facts_unavailable', `the Pods API of the kubelet ${message}`, {
    ...(action === undefined ? {} : { action }),
    cause: error,
  })
}

const MIB = 1024 * 1024

function wordsFor(error: unknown, { timeout, maxBytes }: PodsApiBounds): readonly [string, string?] {
  const { code, details } = membersOf(error)
  if (isRateLimit(error))
    return [
      'refuses, since too many ask it at once',
      'Look for other programs on the node that use its socket: all of them share 100 requests a second.',
    ]
  switch (code) {
    case RESOURCE_EXHAUSTED:
      return [`has a list of more than ${maxBytes / MIB} MiB`, 'Raise kubernetes.pods_api.max_mib.']
    case DEADLINE_EXCEEDED:
      return [`has not answered within ${timeout / 1000} s`]
    case FAILED_PRECONDITION:
      return [
        `does not know its pods yet: ${String(details)}`,
        'Wait: a kubelet that has started asks the API server first.',
      ]
    case UNIMPLEMENTED:
      return [
        'is not what answers on the socket',
        'Name the pods-api.sock of the kubelet in kubernetes.pods_api.socket.',
      ]
    case UNAVAILABLE:
      return [`does not answer: ${String(details)}`]
    default:
      return [`answers with the gRPC code ${String(code)}: ${String(details)}`]
  }
}
