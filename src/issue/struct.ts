/** JSON values as `google.protobuf.Struct`, the shape of ValidateJWTSVID's claims. */
import type { Message } from '../serve/messages.ts'

/** The Struct of a JSON object. */
export function structOf(value: Readonly<Record<string, unknown>>): Message {
  const fields = Object.entries(value).map(([name, member]) => [name, toValue(member)] as const)
  return { fields: Object.fromEntries(fields) }
}

function toValue(value: unknown): Message {
  if (typeof value === 'string') return { stringValue: value }
  if (typeof value === 'number') return { numberValue: value }
  if (typeof value === 'boolean') return { boolValue: value }
  if (Array.isArray(value)) return { listValue: { values: value.map(toValue) } }
  if (typeof value === 'object' && value !== null)
    return { structValue: structOf(value as Record<string, unknown>) }
  return { nullValue: 'NULL_VALUE' }
}
