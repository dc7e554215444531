/** The documentation is part of the product: what it says of the code is checked against the code. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { REASONS } from '../../src/base/reasons.ts'
import { settingRows } from '../../src/config.ts'
import { parsePolicy } from '../../src/policy/load.ts'
import { runPolicyTests } from '../../src/policy/tests.ts'
import { STATUS } from '../../src/serve/status.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'

const ROOT = new URL('../..', import.meta.url).pathname
const read = (name: string) => readFileSync(join(ROOT, name), 'utf8')
const readme = read('README.md')
const security = read('SECURITY.md')

const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ name, text: read(join('src', name)) }))

/** The text between a heading and the next one of its depth or above; a comment in a fenced block is none. */
function section(text: string, heading: string): string {
  const depth = heading.indexOf(' ')
  const [, rest = ''] = text.split(`\n${heading}\n`)
  const lines = rest.split('\n')
  let isFenced = false
  const end = lines.findIndex((line) => {
    if (line.startsWith('```')) isFenced = !isFenced
    return !isFenced && /^#+ /.test(line) && line.indexOf(' ') <= depth
  })
  return lines.slice(0, end < 0 ? undefined : end).join('\n')
}

/** The contents of fenced blocks of one language. */
function blocks(text: string, language: string): readonly string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(
    ([, block = '']) => block,
  )
}

/** The words in code type in the first column of the table in `text`. */
function firstColumn(text: string): readonly string[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .flatMap((line) => [...(line.split(' | ')[0] ?? '').matchAll(/`([^`]+)`/g)].map(([, word = '']) => word))
}

function found(pattern: RegExp, among: (name: string) => boolean = () => true): readonly string[] {
  const words = sources
    .filter(({ name }) => among(name))
    .flatMap(({ text }) => [...text.matchAll(pattern)].map(([, word = '']) => word))
  return [...new Set(words)].sort()
}

describe('the generated parts of README.md', () => {
  it('are what `npm run docs` writes', { timeout: 60_000 }, () => {
    const { status, stderr } = spawnSync(process.execPath, ['.docs.mjs', '--check'], {
      cwd: ROOT,
      encoding: 'utf8',
    })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  })

  it('have every setting with its default and sentence', () => {
    const text = section(readme, '### Settings')
    const rows = settingRows()
    expect(
      rows.filter(({ name, says }) => !text.includes(`| \`${name}\` |`) || !text.includes(says)),
    ).toEqual([])
    expect(firstColumn(text)).toEqual(rows.map(({ name }) => name))
  })

  it('have every reason at the anchor that errors link to, and nothing else', () => {
    const text = section(readme, '### Reasons')
    const anchors = [...text.matchAll(/<a id="([^"]+)"><\/a>/g)].map(([, id]) => id)
    expect(anchors).toEqual(Object.keys(REASONS))
    expect(Object.keys(STATUS)).toEqual(Object.keys(REASONS))
  })
})

describe('README.md', () => {
  it('begins with two commands that are scripts of the package', () => {
    const { scripts } = JSON.parse(read('package.json'))
    const commands = (blocks(section(readme, '## Two commands'), 'sh')[0] ?? '').trim().split('\n')
    expect(commands).toEqual(['npm start', 'npm test'])
    const names = commands.map((command) => command.replace('npm ', ''))
    expect(names.filter((name) => !(name in scripts) || !(`pre${name}` in scripts))).toEqual([])
  })

  it('shows policy files that load and whose tests pass', async () => {
    const texts = blocks(section(readme, '## Policy'), 'yaml').map((text) => ({
      file: /^# (\w+\.yaml):/.exec(text)?.[1] ?? '',
      text,
    }))
    expect(texts.map(({ file }) => file)).toEqual([
      'identity.yaml',
      'platform.yaml',
      'application.yaml',
      'security.yaml',
    ])
    const trustDomain = parseTrustDomain('example.org')
    // Its denial ends one day; the rules themselves are to be tested.
    const now = () => Date.parse('2100-01-01') / 1000
    const result = await parsePolicy(texts, { trustDomain, defaults: { x509Ttl: 3600, jwtTtl: 300 }, now })
    if ('problems' in result) throw new Error(JSON.stringify(result.problems))
    const results = runPolicyTests(result.book)
    expect(results.map(({ passed, message }) => (passed ? 'passed' : message))).toEqual(['passed', 'passed'])
  })

  it('names every finding of `holdfast check` and every degradation, and no others', () => {
    const isCheck = (name: string) => name.startsWith('cli/check')
    const kinds = ['identity', 'target']
    const grades = ['insecure', 'weak', 'strong']
    const made = [
      ...found(/\b(?:fine|warning|failure|skipped)\(\s*'([a-z0-9_]+)'/g, isCheck),
      ...kinds.flatMap((kind) => grades.map((grade) => `${kind}_${grade}`)),
      ...found(/\bcode: (?:.*\? )?'([a-z_]+)'/g, (name) => /^(?:attest|telemetry|daemon|pods)/.test(name)),
      ...found(/degrade\(\{\s*code: [^}]*?: '([a-z_]+)'/g),
      ...found(/^\s*readonly name: ((?:'[a-z_]+'(?: \| )?)+)$/gm, (name) => name === 'cli/harden.ts').flatMap(
        (union) => union.split(' | ').map((word) => `hardening_${word.replaceAll("'", '')}`),
      ),
    ]
    const documented = firstColumn(section(readme, '### Checks and degradations'))
    expect([...new Set(documented)].sort()).toEqual([...new Set(made)].sort())
  })

  it('has an architecture section that fits on a page and knows every folder', () => {
    const text = section(readme, '## Architecture')
    expect(text.split('\n').length).toBeLessThanOrEqual(60)
    const folders = readdirSync(join(ROOT, 'src'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
    expect([...firstColumn(text)].sort()).toEqual(folders.sort())
  })

  it('takes its pitch word for word into the package', () => {
    const { description } = JSON.parse(read('package.json'))
    expect(readme).toContain(description.replace(/^An/, 'Holdfast is an'))
  })
})

describe('links', () => {
  it.each(['README.md', 'SECURITY.md', 'CHANGELOG.md'])(
    'of %s lead to files and headings that exist',
    (name) => {
      const text = read(name)
      const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link)
      const broken = links
        .filter((link) => !/^https?:/.test(link))
        .filter((link) => {
          const [file = '', anchor] = link.split('#')
          if (file !== '' && !existsSync(join(ROOT, file))) return true
          return anchor !== undefined && !anchorsOf(file === '' ? text : read(file)).includes(anchor)
        })
      expect(broken).toEqual([])
    },
  )

  it('of errors and checks lead to the sections that README.md has', () => {
    const pages = found(/https:\/\/holdfast\.dev\/(\w+)#/g)
    expect(pages).toEqual(['checks', 'reasons'])
  })
})

/** The anchors that a Markdown page has: GitHub's slugs of its headings, and its own. */
function anchorsOf(text: string): readonly string[] {
  const slugs = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
  return [...slugs, ...[...text.matchAll(/<a id="([^"]+)">/g)].map(([, id = '']) => id)]
}

describe('the threats in SECURITY.md', () => {
  const rows = section(security, '## Threats and their tests')
    .split('\n')
    .filter((line) => /^\| \d/.test(line))
    .map((line) => line.split(' | '))

  it('are numbered without a gap', () => {
    expect(rows.map(([number = '']) => Number(number.replace('| ', '')))).toEqual(
      rows.map((_row, index) => index + 1),
    )
  })

  it('name test files that exist and hold tests', () => {
    const files = rows.flatMap((row) =>
      [...row.join(' ').matchAll(/`(test\/[^`]+)`/g)].map(([, file = '']) => file),
    )
    expect(files.length).toBeGreaterThan(rows.length)
    const isTest = (file: string) => existsSync(join(ROOT, file)) && /\bit(?:\.\w+)?\(/.test(read(file))
    expect([...new Set(files)].filter((file) => !isTest(file))).toEqual([])
  })

  it('say of each row either which test holds it or why there is none', () => {
    expect(rows.filter((row) => !/`test\/|not here/.test(row[2] ?? ''))).toEqual([])
  })
})
