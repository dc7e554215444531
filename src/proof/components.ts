/** Message components (RFC 9421 s.2): what a signature can cover, and the value each has in a message. */
import { Fault } from '../base/fault.ts'
import { fieldValues, isRequest, type SignedMessage, type SignedRequest } from './http-message.ts'
import { type Item, type Parameters, parseDictionary, parseItem, parseList } from './structured-fields.ts'
import { dictionaryText, itemText, listText, memberText, parametersText } from './structured-text.ts'

/** A component identifier: an item whose string is the name, with the parameters that say which value is meant. */
export interface Component {
  readonly name: string
  readonly parameters: Parameters
}

/** The identifier as signature bases write it: `"content-type"`, `"@method";req`. */
export function identifierOf({ name, parameters }: Component): string {
  return `"${name}"${parametersText(parameters)}`
}

/** The component of that name with these flags. */
export function component(name: string, ...flags: readonly ('sf' | 'bs' | 'req' | 'tr')[]): Component {
  return { name, parameters: new Map(flags.map((flag) => [flag, { type: 'boolean', value: true }])) }
}

const FIELD = /^[!#$%&'*+.^_`|~0-9a-z-]{1,256}$/
const FIELD_PARAMETERS: ReadonlySet<string> = new Set(['sf', 'key', 'bs', 'req', 'tr'])
const DERIVED_PARAMETERS: ReadonlySet<string> = new Set(['req'])
const QUERY_PARAMETERS: ReadonlySet<string> = new Set(['req', 'name'])

/** The component that `item` of a covered list names; throws proof_malformed for one that is not known here. */
export function componentOf({ bare, parameters }: Item): Component {
  if (bare.type !== 'string') throw malformed('a covered component is no string')
  const name = bare.value
  const isDerived = name.startsWith('@')
  if (isDerived ? !(DERIVED.has(name) || name === '@status') : !FIELD.test(name))
    throw malformed('a covered component is not one of RFC 9421')
  const known = isDerived
    ? name === '@query-param'
      ? QUERY_PARAMETERS
      : DERIVED_PARAMETERS
    : FIELD_PARAMETERS
  for (const [key, { type, value }] of parameters) {
    const isText = key === 'key' || key === 'name'
    if (!known.has(key) || type !== (isText ? 'string' : 'boolean') || value === false)
      throw malformed(`a parameter of ${name} is not one of RFC 9421`)
  }
  if (name === '@query-param' && !parameters.has('name')) throw malformed('@query-param has no name')
  return { name, parameters }
}

/** The value of `wanted` in `message`; throws proof_malformed when it has none or none that can be signed. */
export function componentValue(message: SignedMessage, wanted: Component): string {
  const source = wanted.parameters.has('req') ? requestOf(message) : message
  const { name } = wanted
  if (!name.startsWith('@')) return fieldValue(source, wanted)
  if (name === '@status') {
    if (isRequest(source)) throw malformed('@status is no component of a request')
    return String(source.status)
  }
  if (!isRequest(source)) throw malformed(`${name} is no component of a response`)
  const value = DERIVED.get(name)?.(source, wanted)
  if (value === undefined || !PRINTABLE.test(value))
    throw malformed(`${name} has no value that can be signed`)
  return value
}

/** Whether `message` has a field of that name. */
export function hasField({ headers }: SignedMessage, name: string): boolean {
  return fieldValues(headers, name).length > 0
}

function requestOf(message: SignedMessage): SignedRequest {
  if (!isRequest(message) && message.request) return message.request
  throw malformed('a component of the request is covered, and there is none')
}

type Derive = (request: SignedRequest, wanted: Component) => string | undefined

/** s.2.2; the request target is in origin form. */
const DERIVED: ReadonlyMap<string, Derive> = new Map<string, Derive>([
  ['@method', ({ method }) => method],
  ['@scheme', ({ scheme }) => scheme],
  ['@authority', ({ authority }) => authority],
  ['@target-uri', ({ scheme, authority, path, query }) => `${scheme}://${authority}${path}${query}`],
  ['@request-target', ({ path, query }) => path + query],
  ['@path', ({ path }) => path],
  ['@query', ({ query }) => query || '?'],
  ['@query-param', ({ query }, { parameters }) => queryParameter(query, parameters.get('name')?.value)],
])

// s.2.2: printable characters and spaces. A parameter of the query alone may be empty.
const PRINTABLE = /^[ -~]*$/
// s.2.1: other bytes need `bs`. A line break would be a line of its own in the base.
const FIELD_VALUE = /^[\t -~]*$/

/** s.2.2.8: decoded and encoded again; a name that occurs twice is no component. */
function queryParameter(query: string, name: unknown): string | undefined {
  const values = [...new URLSearchParams(query)].filter(([key]) => formEncoded(key) === name)
  return values.length === 1 ? formEncoded(values[0]?.[1] ?? '') : undefined
}

function formEncoded(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()~]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

function fieldValue(message: SignedMessage, { name, parameters }: Component): string {
  const fields = (parameters.has('tr') ? message.trailers : message.headers) ?? []
  const values = fieldValues(fields, name)
  if (values.length === 0) throw malformed(`${name} is covered, and the message has no such field`)
  const [isStrict, isBinary, key] = [parameters.has('sf'), parameters.has('bs'), parameters.get('key')?.value]
  if (isBinary && (isStrict || key !== undefined))
    throw malformed(`${name} has parameters that do not go together`)
  if (isBinary)
    return values.map((value) => `:${Buffer.from(value, 'latin1').toString('base64')}:`).join(', ')
  const value = values.join(', ')
  if (!FIELD_VALUE.test(value)) throw malformed(`${name} has a character that cannot be signed`)
  if (typeof key === 'string') return memberValue(name, value, key)
  return isStrict ? strictValue(name, value) : value
}

/** s.2.1.2. */
function memberValue(name: string, value: string, key: string): string {
  const member = parseDictionary(value)?.get(key)
  if (!member) throw malformed(`${name} is no dictionary with the member that is covered`)
  return memberText(member)
}

/** Fields that are known to be structured (s.2.1.1: `sf` needs their type). */
const DICTIONARIES: ReadonlySet<string> = new Set([
  'content-digest',
  'repr-digest',
  'want-content-digest',
  'want-repr-digest',
  'signature',
  'signature-input',
  'accept-signature',
  'priority',
])
const LISTS: ReadonlySet<string> = new Set(['client-cert-chain', 'cache-status', 'proxy-status'])

function strictValue(name: string, value: string): string {
  const text = DICTIONARIES.has(name)
    ? textOr(parseDictionary(value), dictionaryText)
    : LISTS.has(name)
      ? textOr(parseList(value), listText)
      : name === 'client-cert'
        ? textOr(parseItem(value), itemText)
        : undefined
  if (text === undefined) throw malformed(`${name} is not known as a structured field, or is malformed`)
  return text
}

function textOr<T>(value: T | undefined, toText: (value: T) => string): string | undefined {
  return value === undefined ? undefined : toText(value)
}

function malformed(message: string): Fault {
  return new Fault('proof_malformed', message)
}
