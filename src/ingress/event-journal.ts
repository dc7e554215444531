/** What security events revoked, in a file: a transmitter that was told of success does not tell again. */
import { closeSync, constants, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type DenyRule, parseDenyRule } from './deny-rule.ts'

/** A rule and the time of the event that made it. */
export interface EventRule {
  readonly key: string
  readonly at: Seconds
  readonly rule: DenyRule
}

const FILE_LIMIT = 64 * 1024 * 1024

/** The rules in `file`, which need not exist; throws config_invalid when it cannot be understood. */
export function readEventRules(file: string): readonly EventRule[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw new Fault('config_invalid', `${file}: what security events revoked cannot be read`, {
      cause: error,
    })
  }
  try {
    const items: unknown = text.length > FILE_LIMIT ? undefined : JSON.parse(text)
    if (Array.isArray(items)) return items.map(eventRuleOf)
  } catch {
    // Said below, in one sentence for both causes.
  }
  throw new Fault('config_invalid', `${file}: not a list of what security events revoked`)
}

function eventRuleOf(item: unknown): EventRule {
  const { key, at, rule } = item as Partial<EventRule>
  if (typeof key !== 'string' || typeof at !== 'number') throw new Fault('config_invalid')
  return { key, at, rule: parseDenyRule(rule) }
}

/** On disk, whole, when this returns. Throws what the file system throws. */
export function writeEventRules(file: string, rules: readonly EventRule[]): void {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants
  const fd = openSync(`${file}.new`, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
  try {
    writeSync(fd, JSON.stringify(rules))
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(`${file}.new`, file)
}
