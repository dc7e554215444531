/** What the messages of Envoy's filters have in common: members that may be absent, raw headers, headers to set. */
import { type Members, membersOf } from '../base/members.ts'
import type { Message } from './messages.ts'

/** The message in the member `name`; one without members where it is absent. */
export function memberOf(message: unknown, name: string): Members {
  return membersOf((message as Members)[name])
}

/** Each line of a HeaderMap, in order; undefined where there is no map. `raw_value` counts before `value`. */
export function rawLines(map: unknown): readonly (readonly [string, string])[] | undefined {
  const { headers } = membersOf(map) as { readonly headers?: readonly Members[] }
  return headers?.map(({ key, raw_value: bytes, value }) => [String(key ?? ''), textOf(bytes ?? value)])
}

function textOf(value: unknown): string {
  return Buffer.isBuffer(value) ? value.toString('latin1') : typeof value === 'string' ? value : ''
}

type Headers = Readonly<Record<string, string | number>>

/** Headers to set, for ext_authz: in `value`, since Envoy sends a `raw_value` of that filter out empty. */
export function valueOptions(headers: Headers): readonly Message[] {
  return optionsOf(headers, (key, value) => ({ key, value }))
}

/** Headers to set, for ext_proc: in `raw_value`, since Envoy does not read a `value` of that filter. */
export function rawValueOptions(headers: Headers): readonly Message[] {
  return optionsOf(headers, (key, value) => ({ key, raw_value: Buffer.from(value, 'latin1') }))
}

function optionsOf(headers: Headers, lineOf: (key: string, value: string) => Message): readonly Message[] {
  return Object.entries(headers).map(([key, value]) => ({
    header: lineOf(key.toLowerCase(), String(value)),
    append_action: 'OVERWRITE_IF_EXISTS_OR_ADD',
  }))
}
