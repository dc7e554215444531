import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as yaml from 'yaml'
import { parseWithLibrary, parseYaml, type YamlFile } from '../../../src/base/yaml.ts'
import { parsePlainYaml } from '../../../src/base/yaml-plain.ts'

async function read(text: string): Promise<YamlFile> {
  const result = await parseYaml('f.yaml', text)
  if ('problems' in result) throw new Error(JSON.stringify(result.problems))
  return result.yaml
}

async function problems(text: string): Promise<readonly string[]> {
  const result = await parseYaml('f.yaml', text)
  return 'problems' in result ? result.problems.map(({ line, message }) => `${line}: ${message}`) : []
}

describe('parseYaml', () => {
  it('reads plain values and knows where each stands', async () => {
    const file = await read('# head\na: 1\nlist:\n  - x: true\n    y: [p, "q: r"]\n  - z # note\n')
    expect(file.value).toEqual({ a: 1, list: [{ x: true, y: ['p', 'q: r'] }, 'z'] })
    const lines = [
      [],
      ['a'],
      ['list'],
      ['list', 0],
      ['list', 0, 'y'],
      ['list', 0, 'y', 1],
      ['list', 1],
      ['list', 7],
    ]
    expect(lines.map((path) => file.lineOf(path))).toEqual([1, 2, 3, 4, 5, 5, 6, 3])
  })

  it('reads what is not plain by the library', async () => {
    const file = await read('when: >-\n  a &&\n  b\ntext: "\\u00e4"\nword: off\nnone: ~\n')
    expect(file.value).toEqual({ when: 'a && b', text: 'ä', word: 'off', none: null })
    expect(file.lineOf(['text'])).toBe(4)
  })

  it.each([
    ['a key twice', 'a: 1\nb: 2\na: 3', ['3: the key "a" is there twice; first on line 1']],
    ['a key twice in flow style', 'x: { a: 1, a: 2 }', ['1: the key "a" is there twice; first on line 1']],
    ['a key in two spellings', 'a: 1\n"a": 2', ['2: the key "a" is there twice; first on line 1']],
    [
      'an alias',
      'a: &x 1\nb: *x',
      ['1: the anchor &x is refused: write it out', '2: the alias *x is refused: write it out'],
    ],
    ['a tag', 'a: !!str 1', ['1: the tag tag:yaml.org,2002:str is refused']],
    ['a tag of its own', 'a: !secret 1', ['1: Unresolved tag: !secret']],
    ['a directive', '%YAML 1.1\n---\na: yes', ['1: directives are refused']],
    [
      'two documents',
      'a: 1\n---\nb: 2',
      ['2: Source contains multiple documents; please use YAML.parseAllDocuments()'],
    ],
    ['a key that is no word', '1: a', ['1: a key is not a plain word']],
    ['a merge key', '<<: { a: 1 }\nb: 2', []],
    ['the prototype', '__proto__: { admin: true }', ['1: the key "__proto__" is refused']],
    [
      'a broken line',
      'a: [1',
      ['1: Flow sequence in block collection must be sufficiently indented and end with a ]'],
    ],
  ])('says what is wrong with %s', async (_what, text, expected) => {
    expect(await problems(text)).toEqual(expected)
  })

  it('never merges', async () => {
    expect((await read('<<: { a: 1 }\nb: 2')).value).toEqual({ '<<': { a: 1 }, b: 2 })
  })

  it.each([
    ['a file', `a: ${'x'.repeat(1024 * 1024)}`, /over 1048576 characters/],
    ['a line', `a: ${'é'.repeat(9000)}`, /the line is over 8192 characters/],
    [
      'dashes in one line, which the library turns into a pattern',
      '- '.repeat(4000),
      /indented over 64 columns/,
    ],
    ['indentation', `${' '.repeat(100)}a: 1\n`, /indented over 64 columns/],
    ['open brackets', '['.repeat(40), /over 32 brackets are open/],
    ['depth', `${'- '.repeat(20)}a`, /nested over 16 deep/],
    [
      'depth of maps',
      Array.from({ length: 20 }, (_, at) => `${' '.repeat(at)}a:`).join('\n'),
      /nested over 16 deep/,
    ],
  ])('bounds %s', async (_what, text, message) => {
    expect((await problems(text)).join()).toMatch(message)
  })
})

const word = fc.stringMatching(/^[a-z][a-z0-9_]{0,5}$/)
const scalar = fc.oneof(
  { weight: 8, arbitrary: word },
  {
    weight: 6,
    arbitrary: fc.constantFrom('true', 'null', '1', '0', '1h', 'https://a.test:1/x#y', 'a b', 'a#b', 'a:b'),
  },
  {
    weight: 6,
    arbitrary: fc.constantFrom(
      '"a: b"',
      "'it'",
      '"#"',
      '[]',
      '{}',
      "''",
      '127.0.0.1:80',
      '2030-12-31',
      'x #c',
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom('1.5', '0x1', '1e3', '-1', '~', 'a: b', '.5', 'Null', '-', '*', ''),
  },
  { weight: 1, arbitrary: fc.stringMatching(/^[ -~]{0,8}$/) },
)
const flow = fc.letrec((tie) => ({
  value: fc.oneof({ maxDepth: 3 }, scalar, tie('list'), tie('map')),
  list: fc.array(tie('value'), { maxLength: 3 }).map((items) => `[${items.join(', ')}]`),
  map: fc
    .array(fc.tuple(word, tie('value')), { maxLength: 3 })
    .map((pairs) => `{ ${pairs.map(([key, value]) => `${key}: ${value}`).join(', ')} }`),
})).value as fc.Arbitrary<string>

const indented = (text: string, by: number) => text.replace(/^(?=.)/gm, ' '.repeat(by))
const block = fc.letrec((tie) => ({
  value: fc.oneof({ maxDepth: 4 }, flow, tie('list'), tie('map')),
  list: fc
    .array(tie('value'), { minLength: 1, maxLength: 3 })
    .map((items) => items.map((item) => `- ${indented(item as string, 2).trimStart()}`).join('\n')),
  map: fc
    .array(fc.tuple(word, tie('value'), fc.constantFrom(2, 2, 2, 4, 1, 0), fc.nat(20)), {
      minLength: 1,
      maxLength: 3,
    })
    .map((pairs) =>
      pairs
        .map(([key, value, by, below]) => {
          const text = value as string
          return below === 0 || /\n|^- |^\w+: /.test(text)
            ? `${key}:\n${indented(text, by)}`
            : `${key}: ${text}`
        })
        .join('\n'),
    ),
}))
const root = fc.oneof(block.list, block.map) as fc.Arbitrary<string>

/** A document with a few characters changed, as slips of the hand and hostile files have them. */
const slipped = fc
  .tuple(
    root,
    fc.array(
      fc.tuple(
        fc.nat(),
        fc.constantFrom(
          '',
          ' ',
          '  ',
          '\n',
          '-',
          ': ',
          '#',
          ' #',
          '"',
          "'",
          '[',
          ']',
          '{',
          '}',
          ',',
          '&',
          '*',
          '|',
          '---\n',
          '?',
        ),
      ),
      { maxLength: 2, size: 'xsmall' },
    ),
  )
  .map(([text, slips]) =>
    slips.reduce((now, [at, put]) => {
      const index = at % (now.length + 1)
      return now.slice(0, index) + put + now.slice(index + (put === '' ? 1 : 0))
    }, text),
  )

function pathsOf(value: unknown, path: readonly PropertyKey[] = []): readonly (readonly PropertyKey[])[] {
  if (typeof value !== 'object' || value === null) return [path]
  const keys = Array.isArray(value) ? value.keys() : Object.keys(value)
  return [path, ...[...keys].flatMap((key) => pathsOf(value[key as never], [...path, key]))]
}

describe('the plain reader', () => {
  it.each([
    'layer: identity\nentries:\n  - name: a\n    selectors: [unix:uid:1, "systemd:id:x.service"]\n',
    'a:\n- b\n- c: 1\n  d:\n    - e\nf: { g: [], h: {} } # note\n',
    '-   a: 1\n    b: 2\n-   c\n',
    'a: "x" # note\nb: [ 1 , two ]   # note\n\n\n# end',
  ])('reads %j as the library does', (text) => {
    const library = parseWithLibrary(yaml, 'f.yaml', text)
    expect(parsePlainYaml(text)?.value).toEqual('yaml' in library && library.yaml.value)
  })

  it('reads nothing otherwise than the library does', () => {
    let plainly = 0
    fc.assert(
      fc.property(slipped, (text) => {
        const plain = parsePlainYaml(text)
        if (!plain) return
        plainly += 1
        const library = parseWithLibrary(yaml, 'f.yaml', text)
        if ('problems' in library)
          throw new Error(`the library refuses it: ${JSON.stringify(library.problems)}`)
        expect(plain.value).toEqual(library.yaml.value)
        const own = { value: plain.value, lines: plain.lines }
        for (const path of pathsOf(own.value))
          expect(lineIn(own, path), path.join('.')).toBe(library.yaml.lineOf(path))
      }),
      { numRuns: 1_500 },
    )
    expect(plainly).toBeGreaterThan(100)
  })
})

function lineIn(
  { value, lines }: { value: unknown; lines: ReadonlyMap<object, readonly number[]> },
  path: readonly PropertyKey[],
) {
  let line = 1
  let at = value
  for (const step of path) {
    const holder = at as Record<PropertyKey, unknown>
    const index = Array.isArray(at) ? Number(step) : Object.keys(holder).indexOf(String(step))
    line = lines.get(holder)?.[index] ?? line
    at = holder[step]
  }
  return line
}
