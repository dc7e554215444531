/**
 * The text of an audit record: listed fields only, in the caller's order, each string bounded and without control
 * characters (threats rows 12 and 25). Written by hand because JSON.stringify of a merged object costs twice as much.
 */
import { printable } from '../base/fault.ts'
import type { AuditFacts } from './audit.ts'

/** What the audit log says of itself. */
export type ChainEvent = 'audit.open' | 'audit.checkpoint' | 'audit.rotate' | 'audit.gap'

/** Facts of the audit log's own records. */
export interface ChainFacts {
  readonly event: ChainEvent
  readonly allowed: true
  /** audit.gap: records that were lost for good. */
  readonly lost?: number
  /** audit.open: bytes of a half-written line at the end of the file found. */
  readonly torn?: number
  /** audit.open: the SHA-256 of those bytes. */
  readonly torn_hash?: string
  /** audit.rotate: the `seq` of the oldest record that is kept. */
  readonly first?: number
  readonly detail?: string
}

type Type = 'string' | 'number' | 'boolean' | 'list'

/** A field and its last member: most fields say the same in record after record. */
interface Field {
  readonly name: string
  readonly type: Type
  value: unknown
  member: string | undefined
}

const FIELDS: ReadonlyMap<string, Field> = new Map(
  Object.entries({
    event: 'string',
    allowed: 'boolean',
    reason: 'string',
    owner: 'string',
    observed: 'string',
    spiffe_id: 'string',
    entry: 'string',
    instance: 'string',
    pid: 'number',
    uid: 'number',
    target: 'string',
    route: 'string',
    hop: 'string',
    caller: 'string',
    rule: 'string',
    method: 'string',
    origin: 'string',
    path: 'string',
    audience: 'list',
    jkt: 'string',
    jti: 'string',
    x5t: 'string',
    token: 'string',
    subject: 'string',
    policy: 'string',
    count: 'number',
    detail: 'string',
    lost: 'number',
    torn: 'number',
    torn_hash: 'string',
    first: 'number',
  } satisfies Record<keyof AuditFacts | keyof ChainFacts, Type>).map(([name, type]) => [
    name,
    { name, type, value: undefined, member: undefined },
  ]),
)

const LIST_LIMIT = 16
// Printable ASCII that JSON takes as it is; nearly every value, and four times as fast as the general way.
const PLAIN = /^[ !#-[\]-~]{0,1024}$/

/** `facts` as the members of a JSON object: `"event":"…","allowed":true,…`, without braces. */
export function membersOf(facts: AuditFacts | ChainFacts): string {
  let text = ''
  for (const name in facts) {
    const member = memberOf(FIELDS.get(name), facts[name as keyof typeof facts])
    if (member !== undefined) text += text === '' ? member : `,${member}`
  }
  return text
}

function memberOf(field: Field | undefined, value: unknown): string | undefined {
  if (!field || value === undefined) return undefined
  if (value === field.value && field.type !== 'list') return field.member
  const json = jsonOf(field.type, value)
  field.value = value
  field.member = json === undefined ? undefined : `"${field.name}":${json}`
  return field.member
}

function jsonOf(type: Type, value: unknown): string | undefined {
  if (type === 'list') return Array.isArray(value) ? listOf(value) : undefined
  if (typeof value !== type) return undefined
  if (typeof value === 'string') return stringOf(value)
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : undefined
  return String(value)
}

function stringOf(value: string): string {
  return PLAIN.test(value) ? `"${value}"` : JSON.stringify(printable(value))
}

/** The first strings of a list; an ellipsis stands for the rest. */
function listOf(values: readonly unknown[]): string {
  const strings = values.slice(0, LIST_LIMIT).map((value) => stringOf(String(value)))
  return `[${strings.join(',')}${values.length > LIST_LIMIT ? ',"…"' : ''}]`
}
