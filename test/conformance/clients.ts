/**
 * SPIFFE clients that nobody here wrote, made runnable: each is built once from its pinned sources into a cache below
 * node_modules, and made again when they change.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { ROOT } from '../support/built-agent.ts'
import { until } from '../support/until.ts'

/** How one client is built and started. */
export interface ForeignClient {
  readonly name: string
  /** What must be on the machine, and the command that succeeds when it is. */
  readonly tools: readonly { readonly name: string; readonly check: readonly string[] }[]
  /** The folder of its sources, beside this file. */
  readonly folder: string
  /** Commands that put it below `out`. */
  readonly build: (out: string) => readonly (readonly string[])[]
  readonly run: (out: string) => readonly string[]
  /** What it can fetch besides X.509 and JWT, and show. */
  readonly has: { readonly wit: boolean; readonly hints: boolean }
}

const HERE = join(ROOT, 'test/conformance')

export const CLIENTS: readonly ForeignClient[] = [
  {
    name: 'go-spiffe',
    // Go 1.21 and newer fetch the toolchain that go.mod names by themselves.
    tools: [{ name: 'Go 1.21', check: ['sh', '-c', "go version | grep -qE 'go1[.](2[1-9]|[3-9][0-9])'"] }],
    folder: 'go',
    build: (out) => [['go', 'build', '-o', join(out, 'client'), '.']],
    run: (out) => [join(out, 'client')],
    has: { wit: true, hints: true },
  },
  {
    name: 'spiffe of PyPI',
    tools: [{ name: 'python3-venv', check: ['python3', '-c', 'import ensurepip, venv'] }],
    folder: 'python',
    build: (out) => [
      ['python3', '-m', 'venv', out],
      [join(out, 'bin/pip'), 'install', '--quiet', '--only-binary', ':all:', '-r', 'requirements.txt'],
    ],
    run: (out) => [join(out, 'bin/python'), join(HERE, 'python/client.py')],
    has: { wit: false, hints: false },
  },
  {
    name: 'java-spiffe',
    tools: [
      { name: 'JDK 17', check: ['javac', '--release', '17', '-version'] },
      { name: 'Maven', check: ['mvn', '-version'] },
    ],
    folder: 'java',
    build: (out) => [['mvn', '--quiet', '--batch-mode', `-Doutput=${out}`, 'compile']],
    run: (out) => ['java', '-cp', `${out}/classes:${out}/dependency/*`, 'Client'],
    has: { wit: false, hints: true },
  },
]

/** The first tool that the machine lacks. */
export function missingTool(client: ForeignClient): string | undefined {
  const isMissing = ([command = '', ...args]: readonly string[]) => spawnSync(command, args).status !== 0
  return client.tools.find(({ check }) => isMissing(check))?.name
}

/** Builds the client unless it is built; the command line that starts it. */
export function prepare(client: ForeignClient): readonly string[] {
  const source = join(HERE, client.folder)
  const out = join(ROOT, 'node_modules/.cache/holdfast-conformance', `${client.folder}-${hashOf(source)}`)
  const stamp = join(out, '.built')
  if (existsSync(stamp)) return client.run(out)
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  for (const [command = '', ...args] of client.build(out)) {
    const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: source, encoding: 'utf8' })
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error ?? ''}\n${stdout}${stderr}`)
  }
  writeFileSync(stamp, '')
  return client.run(out)
}

function hashOf(folder: string): string {
  const hash = createHash('sha256')
  const names = readdirSync(folder, { recursive: true, withFileTypes: true, encoding: 'utf8' })
  for (const name of names
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))) {
    hash.update(`${name}\0`).update(readFileSync(name))
  }
  return hash.digest('hex').slice(0, 16)
}

// biome-ignore lint/suspicious/noExplicitAny: tests read members of what they assert on.
type Json = any

function start(command: readonly string[], mode: string, socket: string) {
  const [program = '', ...args] = command
  const env = { ...process.env, SPIFFE_ENDPOINT_SOCKET: `unix://${socket}` }
  return spawn(program, [...args, mode], { env, stdio: ['pipe', 'pipe', 'pipe'] })
}

/** Everything the client fetches from the agent at `socket`. */
export function fetchAll(command: readonly string[], socket: string): Promise<Json> {
  const child = start(command, 'fetch', socket)
  let [output, errors] = ['', '']
  child.stdout.on('data', (chunk) => (output += chunk))
  child.stderr.on('data', (chunk) => (errors += chunk))
  child.stdin.end()
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      if (code === 0) resolve(JSON.parse(output))
      else reject(new Error(`the client ended with ${code}:\n${errors}`))
    })
  })
}

/** A client that follows the agent's streams. */
export interface Follower extends AsyncDisposable {
  /** The newest line with this member; waits until one satisfies `test`. */
  next(member: string, test: (line: Json) => boolean): Promise<Json>
  readonly lines: readonly Json[]
}

/** Starts it; it ends by itself when its standard input does. */
export function follow(command: readonly string[], socket: string): Follower {
  const child = start(command, 'watch', socket)
  const lines: Json[] = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line)))
  child.stderr.resume()
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()))
  return {
    lines,
    next: (member, test) =>
      until(
        `${member} in ${JSON.stringify(lines)}`,
        () => {
          const line = lines.findLast((each) => member in each)
          return line !== undefined && test(line) ? line : undefined
        },
        20_000,
      ),
    [Symbol.asyncDispose]: () => {
      child.stdin.end()
      return gone
    },
  }
}
