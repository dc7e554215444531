/** Files of several documents: each is what the library reads there, or the file is refused; lines are those of the file. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseYamlDocuments } from '../../../src/base/yaml-documents.ts'
import { yaml } from '../../../src/base/yaml-library.ts'

const LINES = [
  '---',
  '--- ',
  '--- # note',
  '---a',
  ' ---',
  '...',
  '# note',
  '',
  'a: 1',
  'b: |',
  '  ---',
  'c: >-',
  'd: "x',
  '  y"',
  '- 1',
  '- a: 2',
  '  b: [1, 2]',
  'e: { f: g }',
  '%YAML 1.2',
]

describe('parseYamlDocuments', () => {
  it('reads what the library reads, or refuses the file', async () => {
    const text = fc.array(fc.constantFrom(...LINES), { maxLength: 12 }).map((lines) => lines.join('\n'))
    let accepted = 0
    const property = fc.asyncProperty(text, async (given) => {
      const { documents, problems } = await parseYamlDocuments('a.yaml', given)
      if (problems.length > 0) return
      accepted += documents.length
      const whole = yaml.parseAllDocuments(given, { version: '1.2', schema: 'core' })
      const values = Array.isArray(whole) ? whole.map((document) => document.toJS()) : []
      expect(documents.map(({ value }) => value)).toEqual(values.filter((value) => value !== null))
    })
    await fc.assert(property, { numRuns: 3_000 })
    expect(accepted).toBeGreaterThan(300)
  })

  it('counts lines over the whole file', async () => {
    const { documents, problems } = await parseYamlDocuments(
      'a.yaml',
      '# one\na: 1\n---\n\nb:\n  c: 2\n---\nd: *x\n',
    )
    expect(documents.map(({ lineOf }) => [lineOf([]), lineOf(['a']), lineOf(['b', 'c'])])).toEqual([
      [1, 2, 1],
      [4, 4, 6],
    ])
    expect(problems).toEqual([{ file: 'a.yaml', line: 8, message: expect.stringContaining('the alias *x') }])
  })
})
