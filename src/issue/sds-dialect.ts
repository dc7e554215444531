/** The messages of SDS as Envoy writes and reads them: state of the world (StreamSecrets) and incremental (DeltaSecrets). */
import { Fault } from '../base/fault.ts'
import type { Message } from '../serve/messages.ts'
import type { Asked } from './sds-names.ts'
import type { Dialect, EncodedSecret, Heard, State } from './sds-stream.ts'

export const SECRET_TYPE = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret'
/** The name that stands for all (xDS transport protocol, wildcard). */
const WILDCARD = '*'
/** Envoy asks for one on each stream. Each is kept, and looked up at each change of anything. */
const NAMES_LIMIT = 64
const NAMES_LENGTH = 32 * 1024
// A SPIFFE ID has at most 2,048 bytes.
const NAME_LENGTH = 2_048
const PLAIN_FLAG = 'disable_spiffe_cert_validation'

type Names = Asked['names']

/** Each message names everything that is wanted; an answer holds what has changed of it. */
export const stateOfTheWorld: Dialect = {
  ignoresStale: true,
  hear: (message, names, isFirst) => {
    checkType(message)
    const asked = namesIn(message, 'resource_names')
    const wanted = wantedOf(asked, isFirst || names === undefined)
    return { ...commonOf(message), names: isFirst || !isSame(wanted, names) ? wanted : 'same', again: [] }
  },
  render: (changed, _removed, state) => (changed.length === 0 ? undefined : responseOf(changed, state)),
}

/** Names are added and taken away; an answer says too what has gone. */
export const incremental: Dialect = {
  ignoresStale: false,
  hear: (message, names, isFirst) => {
    checkType(message)
    const added = namesIn(message, 'resource_names_subscribe')
    const taken = namesIn(message, 'resource_names_unsubscribe')
    const common = commonOf(message)
    if (isFirst && added.length === 0) return { ...common, names: undefined, again: [] }
    if (added.length === 0 && taken.length === 0) return { ...common, names: 'same', again: [] }
    return { ...common, names: changedNames(isFirst ? [] : names, added, taken), again: added }
  },
  render: (changed, removed, { version, nonce }) =>
    changed.length === 0 && removed.length === 0
      ? undefined
      : {
          system_version_info: version,
          type_url: SECRET_TYPE,
          nonce,
          removed_resources: removed,
          resources: changed.map(({ secret, bytes }) => ({
            name: secret.name,
            version: secret.version,
            resource: anyOf(bytes),
          })),
        },
}

/** The DiscoveryResponse of StreamSecrets and FetchSecrets. */
export function responseOf(changed: readonly EncodedSecret[], { version, nonce }: State): Message {
  const resources = changed.map(({ bytes }) => anyOf(bytes))
  return { version_info: version, type_url: SECRET_TYPE, nonce, resources }
}

/** The names of a request that stands alone. */
export function askedIn(message: Message): Asked {
  checkType(message)
  const names = wantedOf(namesIn(message, 'resource_names'), true)
  return { names, isPlain: commonOf(message).isPlain ?? false }
}

function anyOf(bytes: Buffer): Message {
  return { type_url: SECRET_TYPE, value: bytes }
}

/** No name means everything, until a name was asked for; then it means nothing. */
function wantedOf(asked: readonly string[], emptyIsAll: boolean): Names {
  if (asked.includes(WILDCARD) || (asked.length === 0 && emptyIsAll)) return undefined
  return bounded(new Set(asked))
}

function changedNames(
  before: Iterable<string> | undefined,
  added: readonly string[],
  taken: readonly string[],
): Names {
  if (added.includes(WILDCARD)) return undefined
  // Everything stays everything until it is given up as such.
  if (before === undefined && !taken.includes(WILDCARD)) return undefined
  const names = new Set([...(before ?? []), ...added])
  for (const name of taken) names.delete(name)
  return bounded(names)
}

function bounded(names: ReadonlySet<string>): ReadonlySet<string> {
  let length = 0
  for (const name of names) length += name.length
  if (names.size <= NAMES_LIMIT && length <= NAMES_LENGTH) return names
  throw tooMany()
}

function isSame(a: Names, b: Names): boolean {
  if (a === undefined || b === undefined) return a === b
  return a.size === b.size && [...a].every((name) => b.has(name))
}

function namesIn(message: Message, member: string): readonly string[] {
  const value = message[member]
  const names = Array.isArray(value) ? (value as readonly string[]) : []
  if (names.length > NAMES_LIMIT) throw tooMany()
  if (names.some((name) => name.length > NAME_LENGTH))
    throw new Fault('invalid_request', `a name in ${member} is over ${NAME_LENGTH} characters`)
  return names
}

function tooMany(): Fault {
  return new Fault(
    'invalid_request',
    `over ${NAMES_LIMIT} names, or ${NAMES_LENGTH} characters of them, on one stream`,
  )
}

function checkType({ type_url: type = SECRET_TYPE }: Message): void {
  if (type !== SECRET_TYPE && type !== '')
    throw new Fault('invalid_request', `type_url is not ${SECRET_TYPE}`)
}

function commonOf(message: Message): Pick<Heard, 'nonce' | 'error' | 'isPlain'> {
  const nonce = message['response_nonce']
  const detail = message['error_detail'] as Message | undefined
  return {
    nonce: typeof nonce === 'string' ? nonce : '',
    error: detail && String(detail['message'] ?? ''),
    isPlain: plainIn(message['node'] as Message | undefined),
  }
}

/** undefined where the message has no node: Envoy may send it with the first only. */
function plainIn(node: Message | undefined): boolean | undefined {
  if (!node) return undefined
  const fields = (node['metadata'] as Message | undefined)?.['fields'] as Message | undefined
  const flag = fields && Object.hasOwn(fields, PLAIN_FLAG) ? (fields[PLAIN_FLAG] as Message) : undefined
  return flag?.['bool_value'] === true || flag?.['string_value'] === 'true'
}
