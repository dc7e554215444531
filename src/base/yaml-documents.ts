/** Files of several YAML documents, such as manifests of Kubernetes: each document is read as a file of its own. */
import { PROBLEMS_LIMIT, type Problem } from './problem.ts'
import { parseYaml, YAML_LIMIT, type YamlFile } from './yaml.ts'

const DOCUMENTS_LIMIT = 5_000
/** What begins a line with three dashes ends the document, whatever it stands in (YAML 1.2.2 s.9.1.2). */
const SEPARATOR = /^---(.*)$/
/** kubectl takes nothing else on that line. */
const NOTHING = /^\s*(?:#.*)?$/

export interface YamlDocuments {
  /** Those that hold something, in their order, with the lines of the whole file. */
  readonly documents: readonly YamlFile[]
  readonly problems: readonly Problem[]
}

interface Part {
  readonly text: string
  /** How many lines of the file stand before it. */
  readonly before: number
}

/** Reads all documents in `text`; one that is wrong does not keep the others from being read. */
export async function parseYamlDocuments(file: string, text: string): Promise<YamlDocuments> {
  if (text.length > YAML_LIMIT)
    return { documents: [], problems: [{ file, line: 0, message: `is over ${YAML_LIMIT} characters` }] }
  const documents: YamlFile[] = []
  const problems: Problem[] = []
  for (const { text: part, before } of partsOf(file, text, problems)) {
    const result = await parseYaml(file, part)
    if ('problems' in result)
      problems.push(...result.problems.map((each) => ({ ...each, line: each.line + before })))
    else if (result.yaml.value !== undefined && result.yaml.value !== null)
      documents.push(moved(result.yaml, before))
    if (problems.length >= PROBLEMS_LIMIT) break
  }
  return { documents, problems: problems.slice(0, PROBLEMS_LIMIT) }
}

function partsOf(file: string, text: string, problems: Problem[]): readonly Part[] {
  const parts: Part[] = []
  let lines: string[] = []
  let number = 0
  const end = () => {
    if (lines.some((line) => !NOTHING.test(line)))
      parts.push({ text: lines.join('\n'), before: number - 1 - lines.length })
    lines = []
  }
  for (const line of text.split('\n')) {
    number += 1
    const rest = SEPARATOR.exec(line)?.[1]
    if (rest === undefined) {
      lines.push(line)
      continue
    }
    end()
    if (!NOTHING.test(rest))
      problems.push({
        file,
        line: number,
        message: 'a document begins on the line of its ---: begin it below',
      })
    if (parts.length > DOCUMENTS_LIMIT) {
      problems.push({ file, line: number, message: `over ${DOCUMENTS_LIMIT} documents` })
      return []
    }
  }
  number += 1
  end()
  return parts
}

function moved(yaml: YamlFile, before: number): YamlFile {
  return { ...yaml, lineOf: (path) => yaml.lineOf(path) + before }
}
