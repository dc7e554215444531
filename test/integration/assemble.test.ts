/** What the image holds: the steps of the Containerfile, run here, give an agent that starts, and the same bytes twice. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { HARDENED, ROOT } from '../support/built-agent.ts'

const run = promisify(execFile)
const dir = mkdtempSync(join(tmpdir(), 'holdfast-image-'))
const EPOCH = 1_700_000_000

const assemble = (name: string) =>
  run(join(ROOT, 'deploy/assemble'), [join(dir, name)], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(EPOCH) },
  })

beforeAll(() => assemble('first'), 300_000)
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** Every name below `root` with its mode, time and content. */
function contentsOf(root: string): readonly string[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const path = join(root, name)
      const { mode, mtimeMs } = lstatSync(path)
      const hash = lstatSync(path).isFile()
        ? createHash('sha256').update(readFileSync(path)).digest('hex')
        : ''
      return `${name} ${mode.toString(8)} ${mtimeMs} ${hash}`
    })
}

it('runs as it lies there', async () => {
  const program = join(dir, 'first/dist/holdfast.js')
  const { stdout } = await run(process.execPath, [...HARDENED, program, 'version'], { cwd: '/' })
  expect(stdout).toMatch(/^holdfast \d/)
})

it('has no types, no tools of development and nothing that others may write', () => {
  const names = readdirSync(join(dir, 'first')).sort()
  expect(names).toEqual(['LICENSE', 'dist', 'node_modules', 'package.json', 'proto'])
  expect(readdirSync(join(dir, 'first/node_modules'))).not.toContain('esbuild')
  const isWritable = (path: string) => {
    const stats = lstatSync(path)
    return !stats.isSymbolicLink() && (stats.mode & 0o022) !== 0
  }
  const all = readdirSync(join(dir, 'first'), { recursive: true, encoding: 'utf8' })
  expect(all.filter((name) => isWritable(join(dir, 'first', name)))).toEqual([])
})

it('is the same the second time, with the time of the commit', async () => {
  await assemble('second')
  const first = contentsOf(join(dir, 'first'))
  expect(contentsOf(join(dir, 'second'))).toEqual(first)
  expect(first.filter((line) => !line.includes(` ${EPOCH * 1000} `))).toEqual([])
}, 300_000)

it('is what the Containerfile copies', () => {
  const text = readFileSync(join(ROOT, 'deploy/Containerfile'), 'utf8')
  expect(text).toMatch(/^RUN deploy\/assemble \/out$/m)
  expect(text).toMatch(/^COPY --from=build \/out \/app$/m)
  expect(text).toContain(
    JSON.stringify(['/bin/node', ...HARDENED, '/app/dist/holdfast.js']).replaceAll(',', ', '),
  )
  // What assemble reads is let through to the build.
  const letIn = readFileSync(join(ROOT, '.dockerignore'), 'utf8')
  for (const name of ['.build.mjs', '.npmrc', 'LICENSE', 'package-lock.json', 'package.json', 'proto', 'src'])
    expect(letIn).toContain(`!${name}\n`)
})
