/** The house rules: import floors, sizes, forbidden globals, and where secrets may be revealed. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, it } from 'vitest'

const SOURCE = new URL('../../src', import.meta.url).pathname

interface SourceFile {
  readonly name: string
  readonly text: string
  readonly imports: readonly string[]
}

const files: readonly SourceFile[] = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => {
    const text = readFileSync(join(SOURCE, name), 'utf8')
    return { name, text, imports: importsOf(text) }
  })

function importsOf(text: string): readonly string[] {
  const found = text.matchAll(/(?:^(?:import|export)[^'";]*?from\s*|^import\s*|\bimport\()\s*'([^']+)'/gm)
  return [...found].map((match) => match[1] ?? '')
}

function resolved(file: SourceFile): readonly string[] {
  return file.imports
    .filter((name) => name.startsWith('.'))
    .map((name) => relative(SOURCE, join(SOURCE, dirname(file.name), name)))
}

const GROUND = ['base', 'spiffe', 'proof', 'keys', 'policy', 'telemetry', 'attest', 'serve', 'cluster']
/** What each folder may import besides itself. */
const FLOORS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  spiffe: ['base'],
  proof: ['base', 'spiffe'],
  keys: ['base', 'spiffe', 'proof', 'attest'],
  policy: ['base', 'spiffe', 'proof', 'cluster'],
  telemetry: ['base'],
  cluster: ['base'],
  attest: ['base', 'spiffe', 'policy', 'telemetry', 'cluster'],
  http2: ['base'],
  serve: ['base', 'http2', 'policy', 'telemetry', 'attest'],
  issue: GROUND,
  sign: GROUND,
  egress: [...GROUND, 'issue', 'sign'],
  ingress: [...GROUND, 'issue', 'sign', 'egress'],
  operate: [...GROUND, 'issue', 'sign', 'egress'],
  client: ['base'],
  verify: [...GROUND, 'ingress', 'client'],
  relay: [...GROUND, 'issue', 'sign', 'egress', 'client'],
  probe: ['base', 'spiffe', 'proof', 'keys', 'policy'],
  cli: [...GROUND, 'client', 'issue', 'operate', 'relay', 'probe', 'ingress'],
}

/** Where a secret leaves its box: into a hash, a check or the answer that must hold it. */
const REVEALING: ReadonlySet<string> = new Set([
  'sign/sign.ts',
  'issue/workload-api.ts',
  'issue/sds.ts',
  'egress/bind.ts',
  'egress/release.ts',
  'egress/revoke.ts',
  'egress/subjects.ts',
  'egress/token-grant.ts',
])

const folderOf = (name: string) => (name.includes('/') ? (name.split('/')[0] ?? '') : '')

describe('the house', () => {
  it('has no upward import', () => {
    const upward = files.flatMap((file) => {
      const folder = folderOf(file.name)
      const allowed = FLOORS[folder]
      if (!allowed) return []
      return resolved(file)
        .filter((name) => folderOf(name) !== folder && !allowed.includes(folderOf(name)))
        .filter((name) => !(folder === 'cli' && folderOf(name) === ''))
        .map((name) => `${file.name} -> ${name}`)
    })
    expect(upward).toEqual([])
  })

  it('has no import circle', () => {
    const graph = new Map(files.map((file) => [file.name, valueImports(file)]))
    const circles: string[] = []
    const done = new Set<string>()
    const walk = (name: string, path: readonly string[]): void => {
      if (path.includes(name)) circles.push([...path.slice(path.indexOf(name)), name].join(' -> '))
      else if (!done.has(name)) {
        for (const next of graph.get(name) ?? []) walk(next, [...path, name])
        done.add(name)
      }
    }
    for (const name of graph.keys()) walk(name, [])
    expect(circles).toEqual([])
  })

  it('keeps files under 400 lines and opens each with a comment that says what it owns', () => {
    const long = files.filter((file) => file.text.split('\n').length > 400).map((file) => file.name)
    const mute = files.filter((file) => !file.text.startsWith('/**')).map((file) => file.name)
    expect({ long, mute }).toEqual({ long: [], mute: [] })
  })

  it('keeps functions under 60 lines', () => {
    expect(files.flatMap(longFunctions)).toEqual([])
  })

  it.each([
    ['Date.now or new Date()', /\bDate\.now\(|new Date\(\)/, ['base/clock.ts']],
    ['process.env', /process\.env\b/, ['config.ts', 'client/socket.ts']],
    ['koffi', /from 'koffi'/, ['base/native.ts']],
    [
      'the key exit',
      /from '[./]*keys\/deliver\.ts'/,
      ['issue/workload-api.ts', 'issue/svids.ts', 'issue/sds.ts'],
    ],
    ['grpc-js', /from '@grpc\/grpc-js'/, ['client/grpc.ts']],
    ['any', /:\s*any\b|<any>|as any\b/, []],
    ['default exports', /^export default/m, []],
    ['enum or namespace', /^(?:export )?(?:const )?(?:enum|namespace) /m, []],
  ])('allows %s only where it belongs', (_what, pattern, allowed) => {
    const found = files.filter((file) => pattern.test(codeOf(file))).map((file) => file.name)
    expect(found.filter((name) => !(allowed as readonly string[]).includes(name))).toEqual([])
  })

  it('has no unfinished work', () => {
    const found = files.filter((file) => /\b(?:TODO|FIXME|XXX)\b/.test(file.text)).map((file) => file.name)
    expect(found).toEqual([])
  })

  it('reveals secrets only at the listed places', () => {
    const found = files.filter((file) => /\.reveal\(\)/.test(file.text)).map((file) => file.name)
    expect(found.filter((name) => !REVEALING.has(name))).toEqual([])
  })
})

/** The text without comments and without the inside of template strings: prose may use any word. */
function codeOf(file: SourceFile): string {
  return file.text
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, '')
    .replace(/`[^`]*`/g, '``')
}

/** Type imports vanish at run time and may point back. */
function valueImports(file: SourceFile): readonly string[] {
  const text = file.text.replace(/^import type[^'"]*'[^']+'/gm, '')
  return resolved({ ...file, imports: importsOf(text) })
}

function longFunctions(file: SourceFile): readonly string[] {
  const lines = file.text.split('\n')
  return lines.flatMap((line, start) => {
    const opening =
      /^( *)(?:export )?(?:async )?(?:function\*? |(?:static |async |get |#)*\*?[#\w]+\([^)]*\)[^=;]*\{$)/.exec(
        line,
      )
    if (!opening || /^\s*(?:if|for|while|switch|return)\b/.test(line)) return []
    const end = lines.findIndex(
      (later, index) => index > start && (later === `${opening[1]}}` || later === `${opening[1]}},`),
    )
    return end - start > 60 ? [`${file.name}:${start + 1} has ${end - start} lines`] : []
  })
}
