/** What is wrong with a value that a schema refused, said for the person who wrote the file. */
import type * as zod from 'zod'
import { nearestName } from './nearest.ts'
import { PROBLEMS_LIMIT, type Problem } from './problem.ts'
import type { Path, YamlFile } from './yaml.ts'

export type ShapeResult<T> = { readonly value: T } | { readonly problems: readonly Problem[] }

/** The value of `yaml` as `schema` wants it, or what is wrong with it and where. */
export function checkShape<S extends zod.ZodType>(schema: S, yaml: YamlFile): ShapeResult<zod.output<S>> {
  const result = schema.safeParse(yaml.value ?? {}, { reportInput: true })
  if (result.success) return { value: result.data }
  const problems = result.error.issues.flatMap((issue) => problemsFor(schema, yaml, issue))
  return { problems: problems.slice(0, PROBLEMS_LIMIT) }
}

type Issue = zod.core.$ZodIssue

function problemsFor(schema: zod.ZodType, yaml: YamlFile, issue: Issue): readonly Problem[] {
  const meantForm = issue.code === 'invalid_union' ? meantFormOf(issue.errors) : undefined
  if (meantForm) {
    return meantForm.flatMap((each) =>
      problemsFor(schema, yaml, { ...each, path: [...issue.path, ...each.path] }),
    )
  }
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, issue.path)
    return issue.keys.map((key) => ({
      file: yaml.file,
      line: yaml.lineOf([...issue.path, key]),
      message: `unknown key ${quoted(key)}${inPlace(issue.path)}${near(key, known)}`,
    }))
  }
  const message = `${pathText(issue.path)}: ${sentenceOf(issue)}`
  return [{ file: yaml.file, line: yaml.lineOf(issue.path), message }]
}

/** The form of a union that the writer had in mind: the one that is not wrong as a whole. */
function meantFormOf(forms: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  return forms.find((issues) =>
    issues.every(({ code, path }) => path.length > 0 || code === 'unrecognized_keys' || code === 'custom'),
  )
}

function sentenceOf(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      if (issue.input === undefined) return 'is missing'
      return `is ${seen(issue.input)}, wanted ${WANTED[issue.expected] ?? issue.expected}`
    case 'invalid_value': {
      const names = issue.values.map(String)
      const name = typeof issue.input === 'string' ? near(issue.input, names) : ''
      if (issue.input === undefined) return `is missing, wanted ${names.join(' or ')}`
      return `is ${seen(issue.input)}, wanted ${names.join(' or ')}${name}`
    }
    case 'too_small':
      return `is too small, wanted at least ${issue.minimum}${unitOf(issue.origin)}`
    case 'too_big':
      return `is too large, wanted at most ${issue.maximum}${unitOf(issue.origin)}`
    case 'invalid_union':
      return issue.input === undefined
        ? 'is missing'
        : `is ${seen(issue.input)}, which is none of the forms it may have`
    default:
      return issue.message
  }
}

const WANTED: Readonly<Record<string, string>> = {
  object: 'a mapping',
  record: 'a mapping',
  array: 'a list',
  string: 'a text',
  boolean: 'true or false',
  number: 'a number',
  int: 'a whole number',
}

function unitOf(origin: string): string {
  if (origin === 'string') return ' characters'
  return origin === 'array' ? ' items' : ''
}

/** Files hold no secrets, but whoever puts one there by mistake should not find it in a log. */
function seen(value: unknown): string {
  if (value === null) return 'empty'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'a mapping'
  return typeof value === 'string' ? quoted(value) : String(value)
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text)
}

function near(name: string, names: readonly string[]): string {
  const nearest = nearestName(name, names)
  return nearest === undefined ? '' : `, did you mean ${quoted(nearest)}?`
}

function inPlace(path: Path): string {
  return path.length === 0 ? '' : ` in ${pathText(path)}`
}

/** `entries[2].deliver`. */
export function pathText(path: Path): string {
  if (path.length === 0) return 'the file'
  return path
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`))
    .join('')
    .replace(/^\./, '')
}

interface Def {
  readonly type: string
  readonly shape?: Readonly<Record<string, zod.core.$ZodType>>
  readonly element?: zod.core.$ZodType
  readonly innerType?: zod.core.$ZodType
  readonly in?: zod.core.$ZodType
  readonly options?: readonly zod.core.$ZodType[]
}

/** The keys that an object at `path` may have, of all forms it may have. */
function keysAt(schema: zod.core.$ZodType, path: Path): readonly string[] {
  const def = schema._zod.def as unknown as Def
  if (def.options) return def.options.flatMap((option) => keysAt(option, path))
  const inner = def.innerType ?? def.in
  if (inner) return keysAt(inner, path)
  const [step, ...rest] = path
  if (step === undefined) return Object.keys(def.shape ?? {})
  const next = typeof step === 'number' ? def.element : def.shape?.[String(step)]
  return next ? keysAt(next, rest) : []
}
