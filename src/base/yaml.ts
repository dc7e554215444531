/**
 * YAML as people write configuration: one document of plain values. Keys twice, aliases, anchors, tags and directives
 * are refused, since two readers could see two documents in them; size, depth and count are bounded.
 */
import type { Alias, Node, Pair, Scalar, YAMLMap, YAMLSeq } from 'yaml'
import { PROBLEMS_LIMIT, type Problem } from './problem.ts'
import { parsePlainYaml } from './yaml-plain.ts'

/** A path into a document: keys and indexes. */
export type Path = readonly PropertyKey[]

/** One file as read: plain values, and where each of them stands. */
export interface YamlFile {
  readonly file: string
  readonly value: unknown
  /** The line of what is at `path`, or of the nearest thing above it; from 1. */
  lineOf(path: Path): number
}

export type YamlResult = { readonly yaml: YamlFile } | { readonly problems: readonly Problem[] }

/** The most that is read of one file, in characters. */
export const YAML_LIMIT = 1024 * 1024
const DEPTH_LIMIT = 16
const LINE_LIMIT = 8192
const INDENT_LIMIT = 64
const BRACKETS_LIMIT = 32
const NODES_LIMIT = 200_000

type Yaml = typeof import('yaml')
/** The line of each item of a list and each key of a mapping, in their order. */
type Lines = ReadonlyMap<object, readonly number[]>

/** Reads `text`; `file` only names it. The library is loaded for the first text that is not plain. */
export async function parseYaml(file: string, text: string): Promise<YamlResult> {
  if (text.length > YAML_LIMIT) return failed(file, 0, `is over ${YAML_LIMIT} characters`)
  const plain = parsePlainYaml(text)
  if (plain) return { yaml: yamlFile(file, plain.value, plain.lines) }
  const layout = layoutProblem(text)
  if (layout) return failed(file, layout.line, layout.message)
  return parseWithLibrary((await import('./yaml-library.ts')).yaml, file, text)
}

/** As the library reads it; exported so that a test can hold the plain reader to it. */
export function parseWithLibrary(yaml: Yaml, file: string, text: string): YamlResult {
  const counter = new yaml.LineCounter()
  const lineAt = (offset: number) => counter.linePos(offset).line
  const document = yaml.parseDocument(text, {
    version: '1.2',
    schema: 'core',
    merge: false,
    // Checked below with a set: the library compares each key with all before it.
    uniqueKeys: false,
    prettyErrors: false,
    // At `silent` a second document would be no error.
    logLevel: 'error',
    lineCounter: counter,
  })
  const syntax = [...document.errors, ...document.warnings].map(({ pos, message }) => ({
    file,
    line: lineAt(pos[0]),
    message: firstLine(message),
  }))
  if (syntax.length > 0) return { problems: syntax.slice(0, PROBLEMS_LIMIT) }
  const reader = new Reader(yaml, file, lineAt)
  if (document.directives?.yaml.explicit || /^%/m.test(text.slice(0, document.range[0]))) {
    reader.refuse(0, 'directives are refused')
  }
  const value = reader.read(document.contents, 1)
  if (reader.problems.length > 0) return { problems: reader.problems }
  return { yaml: yamlFile(file, value, reader.lines) }
}

function yamlFile(file: string, value: unknown, lines: Lines): YamlFile {
  return { file, value, lineOf: (path) => lineOf(value, lines, path) }
}

/** Goes down `path` as far as it leads. */
function lineOf(root: unknown, lines: Lines, path: Path): number {
  let line = 1
  let value = root
  for (const step of path) {
    if (typeof value !== 'object' || value === null) break
    const index = Array.isArray(value) ? Number(step) : Object.keys(value).indexOf(String(step))
    line = lines.get(value)?.[index] ?? line
    value = (value as Readonly<Record<PropertyKey, unknown>>)[step]
  }
  return line
}

function failed(file: string, line: number, message: string): YamlResult {
  return { problems: [{ file, line, message }] }
}

function firstLine(message: string): string {
  return message.split('\n')[0] ?? message
}

/** The parser recurses and builds patterns from indentation, so what is open at once is bounded before it sees the text. */
function layoutProblem(text: string): { readonly line: number; readonly message: string } | undefined {
  let open = 0
  let line = 0
  for (const content of text.split('\n')) {
    line += 1
    if (content.length > LINE_LIMIT) return { line, message: `the line is over ${LINE_LIMIT} characters` }
    const [indent = '', marks = ''] = /^( *)((?:[-?] +)*)/.exec(content)?.slice(1) ?? []
    if (indent.length > INDENT_LIMIT || marks.length > INDENT_LIMIT) {
      return { line, message: `the line is indented over ${INDENT_LIMIT} columns` }
    }
    // Brackets in strings and comments count as well; nobody leaves that many open.
    for (const bracket of content.match(/[[\]{}]/g) ?? []) {
      open = Math.max(0, open + (bracket === '[' || bracket === '{' ? 1 : -1))
      if (open > BRACKETS_LIMIT) return { line, message: `over ${BRACKETS_LIMIT} brackets are open` }
    }
  }
  return undefined
}

/** Turns nodes into plain values and notes what may not be there. */
class Reader {
  readonly problems: Problem[] = []
  readonly lines = new Map<object, number[]>()
  readonly #yaml: Yaml
  readonly #file: string
  readonly #lineAt: (offset: number) => number
  #nodes = 0

  constructor(yaml: Yaml, file: string, lineAt: (offset: number) => number) {
    this.#yaml = yaml
    this.#file = file
    this.#lineAt = lineAt
  }

  refuse(offset: number, message: string): undefined {
    if (this.problems.length < PROBLEMS_LIMIT) {
      this.problems.push({ file: this.#file, line: this.#lineAt(offset), message })
    }
    return undefined
  }

  read(node: Node | null, depth: number): unknown {
    if (node === null) return undefined
    const offset = node.range?.[0] ?? 0
    this.#nodes += 1
    if (this.#nodes > NODES_LIMIT || depth > DEPTH_LIMIT) {
      if (this.#nodes === NODES_LIMIT + 1) this.refuse(offset, `over ${NODES_LIMIT} values`)
      if (depth === DEPTH_LIMIT + 1) this.refuse(offset, `nested over ${DEPTH_LIMIT} deep`)
      return undefined
    }
    if (this.#yaml.isAlias(node))
      return this.refuse(offset, `the alias *${nameOf(node)} is refused: write it out`)
    const { anchor, tag } = node as Scalar
    if (anchor !== undefined) return this.refuse(offset, `the anchor &${anchor} is refused: write it out`)
    if (tag !== undefined) return this.refuse(offset, `the tag ${tag} is refused`)
    if (this.#yaml.isMap(node)) return this.#readMap(node, depth)
    if (this.#yaml.isSeq(node)) return this.#readSeq(node as YAMLSeq<Node>, depth)
    return (node as Scalar).value
  }

  #readSeq(seq: YAMLSeq<Node>, depth: number): unknown[] {
    const items = seq.items.map((item) => this.read(item, depth + 1))
    this.lines.set(
      items,
      seq.items.map((item) => this.#lineAt(item.range?.[0] ?? seq.range?.[0] ?? 0)),
    )
    return items
  }

  #readMap(map: YAMLMap, depth: number): Record<string, unknown> {
    const seen = new Map<string, number>()
    const value: Record<string, unknown> = {}
    for (const { key, value: below } of map.items as Pair<Scalar, Node | null>[]) {
      const name = this.#yaml.isScalar(key) ? key.value : undefined
      const offset = key?.range?.[0] ?? map.range?.[0] ?? 0
      if (typeof name !== 'string') {
        this.refuse(offset, 'a key is not a plain word')
        continue
      }
      this.read(key, depth)
      const first = seen.get(name)
      if (first !== undefined) {
        this.refuse(
          offset,
          `the key ${JSON.stringify(name)} is there twice; first on line ${this.#lineAt(first)}`,
        )
      } else if (name === '__proto__') this.refuse(offset, 'the key "__proto__" is refused')
      else value[name] = this.read(below, depth + 1)
      seen.set(name, offset)
    }
    this.lines.set(
      value,
      Object.keys(value).map((name) => this.#lineAt(seen.get(name) ?? 0)),
    )
    return value
  }
}

function nameOf(alias: Alias): string {
  return alias.source
}
