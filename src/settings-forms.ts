/** What a setting of the configuration can be: its form, its default, and how both are written. */
import type { Seconds } from './base/clock.ts'
import type { Layer } from './policy/statements.ts'

/** What a setting may be written as. */
export type Form =
  | {
      readonly kind:
        | 'text'
        | 'path'
        | 'trust_domain'
        | 'paths'
        | 'texts'
        | 'url'
        | 'flag'
        | 'listen'
        | 'owners'
        | 'hook'
        | 'redis'
    }
  | { readonly kind: 'choice'; readonly of: readonly string[] }
  | { readonly kind: 'count' | 'duration'; readonly min: number; readonly max: number }

/** One setting; `value` is what holds without it. */
export interface Setting<T> {
  readonly form: Form
  readonly value: T
  /** The default as a person would write it, or words for one that depends on the machine. */
  readonly written: string
  readonly says: string
  readonly required?: true
}

/** An address to listen on; a port of 0 takes any. */
export interface Listen {
  readonly host: string
  readonly port: number
}

/** Whom to ask about a layer of policy. */
export interface OwnerContact {
  readonly team: string
  readonly contact: string
}

export const LAYERS: readonly Layer[] = ['identity', 'platform', 'application', 'security']

const SECOND = 1
export const MINUTE = 60
export const HOUR = 3600
export const DAY = 86_400

export type Named<T> = Setting<T | undefined>

export const optional = (kind: 'text' | 'path' | 'url', says: string, written = 'none'): Named<string> => ({
  form: { kind },
  value: undefined,
  written,
  says,
})

/** One that always holds something. */
export const preset = (kind: 'text' | 'path', value: string, says: string): Setting<string> => ({
  form: { kind },
  value,
  written: value,
  says,
})

export const choice = <const T extends string>(of: readonly T[], value: T, says: string): Setting<T> => ({
  form: { kind: 'choice', of },
  value,
  written: value,
  says,
})

export const flag = (value: boolean, says: string): Setting<boolean> => ({
  form: { kind: 'flag' },
  value,
  written: String(value),
  says,
})

export const count = (value: number, min: number, max: number, says: string): Setting<number> => ({
  form: { kind: 'count', min, max },
  value,
  written: String(value),
  says,
})

export const duration = (value: Seconds, min: Seconds, max: Seconds, says: string): Setting<Seconds> => ({
  form: { kind: 'duration', min, max },
  value,
  written: durationText(value),
  says,
})

export const texts = (value: readonly string[], says: string): Setting<readonly string[]> => ({
  form: { kind: 'texts' },
  value,
  written: JSON.stringify(value),
  says,
})

export const listen = (value: Listen | undefined, says: string): Named<Listen> => ({
  form: { kind: 'listen' },
  value,
  written: value ? `${value.host}:${value.port}` : 'off',
  says,
})

/** `1h` of 3600: the largest unit that divides it. */
export function durationText(seconds: Seconds): string {
  const [unit, size] = (
    [
      ['d', DAY],
      ['h', HOUR],
      ['m', MINUTE],
    ] as const
  ).find(([, size]) => seconds % size === 0) ?? ['s', SECOND]
  return `${seconds / size}${unit}`
}

/** A branch of the table: settings and further branches, by name. */
export type Branch = { readonly [name: string]: Setting<unknown> | Branch }

export function isSetting(node: Setting<unknown> | Branch): node is Setting<unknown> {
  return 'form' in node && 'says' in node
}

/** `connectionsPerUid` of `connections_per_uid`. */
export function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

export type CamelCase<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : S
