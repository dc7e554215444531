/** The shipped units and the shipped package: checked by systemd's own tools, and run as the units run them. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { HARDENED, ROOT } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import { until } from '../support/until.ts'

const has = (tool: string) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error === undefined
const [hasAnalyze, hasActivate] = [has('systemd-analyze'), has('systemd-socket-activate')]
if (!hasAnalyze || !hasActivate)
  console.warn('SKIPPED: the units need systemd-analyze and systemd-socket-activate')
const UNITS = join(ROOT, 'deploy/systemd')
const run = promisify(execFile)
const IDENTITY = ['GET', '/v1/identity'] as const
let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-systemd-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What a process writes, and its end. */
interface Running extends AsyncDisposable {
  readonly pid: number
  readonly output: () => string
  end(): Promise<number | null>
}

function start(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Running {
  const child: ChildProcess = spawn(command, args, { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output += chunk))
  const exit = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const end = () => {
    child.kill('SIGTERM')
    return exit
  }
  return {
    pid: child.pid ?? 0,
    output: () => output,
    end,
    [Symbol.asyncDispose]: async () => {
      await end()
    },
  }
}

describe('the units', () => {
  it.skipIf(!hasAnalyze)('are clean to `systemd-analyze verify`', () => {
    const units = ['holdfast.service', 'holdfast.socket'].map((name) => join(UNITS, name))
    const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', ...units], {
      encoding: 'utf8',
    })
    expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: '' })
  })

  it.skipIf(!hasAnalyze)('expose the service at most 3.0 of 10 to `systemd-analyze security`', () => {
    const args = ['security', '--offline=true', '--threshold=30', join(UNITS, 'holdfast.service')]
    const { status, stdout } = spawnSync('systemd-analyze', args, { encoding: 'utf8' })
    expect({ status, said: status === 0 ? '' : stdout }).toEqual({ status: 0, said: '' })
  })

  it.each([
    ['holdfast.socket', 'ListenStream', '/run/holdfast/public/workload.sock'],
    ['holdfast.socket', 'SocketMode', '0777'],
    ['holdfast.socket', 'Backlog', '4096'],
    ['holdfast.service', 'LimitCORE', '0'],
    ['holdfast.service', 'NoNewPrivileges', 'yes'],
    ['holdfast.service', 'CapabilityBoundingSet', 'CAP_SYS_PTRACE CAP_DAC_READ_SEARCH'],
    ['holdfast.service', 'RestartPreventExitStatus', '2'],
  ])('%s says %s=%s', (unit, name, value) => {
    expect(settingOf(unit, name)).toBe(value)
  })
})

function settingOf(unit: string, name: string): string | undefined {
  return new RegExp(`^${name}=(.*)$`, 'm').exec(readFileSync(join(UNITS, unit), 'utf8'))?.[1]
}

describe('socket activation', () => {
  it.skipIf(!hasActivate)(
    'starts the agent for the first client, who is served, on a socket that stays when the agent ends',
    async () => {
      const dir = join(folder, 'activated')
      const socket = join(dir, 'public', 'workload.sock')
      mkdirSync(join(dir, 'public'), { recursive: true, mode: 0o755 })
      const agent = [process.execPath, ...HARDENED, 'dist/holdfast.js', 'run', '--dev', '--dir', dir]
      await using activator = start('systemd-socket-activate', ['-l', socket, '--fdname=workload', ...agent])
      await until('the socket', () => existsSync(socket))
      const { ino } = lstatSync(socket)
      // The agent does not run yet: the kernel lets this client wait.
      expect(activator.output()).not.toContain('Execing')
      const answer = await until('an agent that is ready', async () => {
        const { status, body } = await call(socket, ...IDENTITY)
        return status === 200 ? body : undefined
      })
      expect(answer.peer.pid).toBe(process.pid)
      expect(lstatSync(socket).ino).toBe(ino)
      expect((await call(join(dir, 'private', 'admin.sock'), 'GET', '/v1/status')).body.pid).toBe(
        activator.pid,
      )
      expect(await activator.end()).toBe(0)
      expect(lstatSync(socket).ino).toBe(ino)
    },
  )

  it('takes no descriptor that was meant for another process', async () => {
    const dir = join(folder, 'inherited')
    const env = { ...process.env, LISTEN_FDS: '1', LISTEN_PID: String(process.pid) }
    const args = [...HARDENED, 'dist/holdfast.js', 'run', '--dev', '--dir', dir]
    await using _agent = start(process.execPath, args, env)
    const socket = join(dir, 'public', 'workload.sock')
    expect(await until('the agent', () => call(socket, ...IDENTITY).catch(() => undefined))).toBeTruthy()
  })
})

describe('the packed agent', () => {
  let prefix: string
  let env: NodeJS.ProcessEnv

  beforeAll(async () => {
    prefix = join(folder, 'prefix')
    const installed = join(prefix, 'lib/node_modules/holdfast')
    mkdirSync(join(installed, 'node_modules'), { recursive: true })
    mkdirSync(join(prefix, 'bin'))
    const pack = ['pack', '--ignore-scripts', '--silent', '--pack-destination', folder]
    const { stdout } = await run('npm', pack, { cwd: ROOT })
    await run('tar', ['-xzf', join(folder, stdout.trim()), '-C', installed, '--strip-components=1'])
    linkDependencies(installed)
    // As npm does for a global package.
    symlinkSync('../lib/node_modules/holdfast/dist/holdfast.js', join(prefix, 'bin/holdfast'))
    env = { PATH: [join(prefix, 'bin'), dirname(process.execPath), '/usr/bin', '/bin'].join(delimiter) }
  })

  /** Only what the package says that it depends on; what those need lies beside where they really are. */
  function linkDependencies(installed: string): void {
    const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'))
    for (const name of Object.keys(dependencies)) {
      const link = join(installed, 'node_modules', name)
      mkdirSync(dirname(link), { recursive: true })
      symlinkSync(join(ROOT, 'node_modules', name), link)
    }
  }

  it('says its version by the command that npm installs', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
    const { stdout } = await run('holdfast', ['version'], { env, cwd: folder })
    expect(stdout).toContain(`holdfast ${version} `)
  })

  it('runs by the command of the unit with its configuration, hardened, and ends as systemd asks', async () => {
    const [etc, runtime] = [join(folder, 'etc'), join(folder, 'run')]
    await run('holdfast', ['init', '--dir', etc, '--trust-domain', 'example.org'], { env, cwd: folder })
    const shipped = readFileSync(
      join(prefix, 'lib/node_modules/holdfast/deploy/systemd/holdfast.yaml'),
      'utf8',
    )
    const moved = shipped
      .replaceAll(/\/var\/(?:lib|log)\/holdfast/g, etc)
      .replace('127.0.0.1:9465', '127.0.0.1:0')
    writeFileSync(join(etc, 'holdfast.yaml'), moved, { mode: 0o600 })
    // Without this the agent would run where the key memory cannot be locked.
    expect(moved).toContain('on_degraded: refuse')
    const [command = '', ...args] = (settingOf('holdfast.service', 'ExecStart') ?? '')
      .replace('/run/holdfast', runtime)
      .replace('/etc/holdfast', etc)
      .split(' ')
    await using agent = start(command, args, env)
    const socket = join(runtime, 'public', 'workload.sock')
    const { body } = await until(`the agent\n${agent.output()}`, () =>
      call(socket, ...IDENTITY).catch(() => undefined),
    )
    expect(body.trust_domain).toBe('example.org')
    const status = (await call(join(runtime, 'private', 'admin.sock'), 'GET', '/v1/status')).body
    expect({ state: status.state, degraded: status.degraded }).toEqual({ state: 'ready', degraded: [] })
    expect(existsSync(join(etc, 'audit.jsonl'))).toBe(true)
    expect(await agent.end()).toBe(0)
    expect(existsSync(socket)).toBe(false)
  })

  it('ends with the code after which systemd does not start it again when the configuration is wrong', async () => {
    const file = join(folder, 'wrong.yaml')
    writeFileSync(file, 'trust_domain: example.org\npolicys: {}\n', { mode: 0o600 })
    const ended = run('holdfast', ['run', '--config', file, '--dir', join(folder, 'none')], {
      env,
      cwd: folder,
    })
    const { code, stderr } = await ended.then(
      () => ({ code: 0, stderr: '' }),
      (error: { code: number; stderr: string }) => error,
    )
    expect(String(code)).toBe(settingOf('holdfast.service', 'RestartPreventExitStatus'))
    expect(stderr).toContain('policy')
  })
})
