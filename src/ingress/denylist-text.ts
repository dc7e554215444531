/** Denylists as text: JSON lines, or a YAML list. One item that is not understood refuses the whole. */
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { parseYaml } from '../base/yaml.ts'
import { type DenyRule, parseDenyRule } from './deny-rule.ts'

export const LIST_BYTES = 16 * 1024 * 1024
export const LIST_ITEMS = 100_000
const LINE = { maxBytes: 8192, maxDepth: 2 }

/** The rules in `text`; `name` is where it is from. Throws config_invalid with the line. */
export async function parseDenylist(name: string, text: string): Promise<readonly DenyRule[]> {
  const trimmed = text.trimStart()
  if (trimmed === '') return []
  return trimmed.startsWith('{') ? parseLines(name, text) : await parseList(name, text)
}

function parseLines(name: string, text: string): readonly DenyRule[] {
  const rules: DenyRule[] = []
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    if (rules.length >= LIST_ITEMS) throw invalid(name, index + 1, `over ${LIST_ITEMS} items`)
    rules.push(ruleAt(name, index + 1, () => parseJsonObject(line, LINE)))
  }
  return rules
}

async function parseList(name: string, text: string): Promise<readonly DenyRule[]> {
  const parsed = await parseYaml(name, text)
  if ('problems' in parsed) {
    const [first] = parsed.problems
    throw invalid(name, first?.line ?? 0, first?.message ?? 'not YAML')
  }
  const { value, lineOf } = parsed.yaml
  if (value === null || value === undefined) return []
  if (!Array.isArray(value) || value.length > LIST_ITEMS)
    throw invalid(name, 1, `not a list of at most ${LIST_ITEMS} items`)
  return value.map((item: unknown, index) => ruleAt(name, lineOf([index]), () => item))
}

function ruleAt(name: string, line: number, read: () => unknown): DenyRule {
  try {
    return parseDenyRule(read())
  } catch (error) {
    throw invalid(name, line, Fault.from(error).message)
  }
}

function invalid(name: string, line: number, what: string): Fault {
  return new Fault('config_invalid', `${name}:${line}: ${what}`, {
    owner: 'security',
    action: 'Correct the denylist; until then the last good one holds.',
  })
}
