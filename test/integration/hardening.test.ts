/** What the built agent does to itself before it holds a key, and what it does when that fails. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { HARDENED, ROOT, startBuiltAgent } from '../support/built-agent.ts'
import { call } from '../support/call.ts'

const PROOF = { body: { method: 'GET', url: 'https://api.example.test/v1/items' } }
const INSPECTOR_PORT = 9229
let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-hard-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A configuration with the development policy, written by `init`-like hands. */
function configFile(more: string): string {
  const file = join(folder, `${Math.random()}.yaml`)
  writeFileSync(file, `trust_domain: dev.holdfast.test\npolicy: { files: [policy] }\n${more}`, {
    mode: 0o600,
  })
  return file
}

/** Starts and waits for the end, which must come by itself. */
function runToEnd(
  nodeArgs: readonly string[],
  args: readonly string[],
  env = {},
  stdout: number | 'pipe' = 'pipe',
) {
  return spawnSync(
    process.execPath,
    [...nodeArgs, 'dist/holdfast.js', 'run', ...args, '--dir', join(folder, 'x')],
    {
      cwd: ROOT,
      encoding: 'utf8',
      timeout: 20_000,
      stdio: ['ignore', stdout, 'pipe'],
      env: { PATH: process.env['PATH'], ...env },
    },
  )
}

const degraded = async (socket: string) =>
  (await call(socket, 'GET', '/v1/status')).body.degraded.map(({ code }: { code: string }) => code)

describe('the agent', () => {
  beforeAll(async () => {
    // A first run leaves the development policy behind for those that follow.
    const agent = await startBuiltAgent({ dir: folder })
    await agent.stop()
  })

  it('has locked key memory, no core files, no dumps, and says that nothing is missing', async () => {
    await using agent = await startBuiltAgent()
    expect(await degraded(agent.adminSocket)).toEqual([])
    const status = readFileSync(`/proc/${agent.pid}/status`, 'utf8')
    expect(Number(/^VmLck:\s+(\d+)/m.exec(status)?.[1])).toBeGreaterThanOrEqual(1024)
    expect(readFileSync(`/proc/${agent.pid}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/)
  })

  it('opens no inspector on SIGUSR1, and lives', async () => {
    await using agent = await startBuiltAgent()
    process.kill(agent.pid, 'SIGUSR1')
    expect((await call(agent.socket, 'GET', '/v1/identity')).status).toBe(200)
    expect(await answers(INSPECTOR_PORT)).toBe(false)
    expect((await call(agent.socket, 'POST', '/v1/dpop', PROOF)).status).toBe(200)
  })

  it.each([
    ['without the secure heap', [], {}, 'hardening_secure_heap'],
    [
      'with an inspector in NODE_OPTIONS',
      HARDENED,
      { NODE_OPTIONS: '--inspect=127.0.0.1:0' },
      'hardening_inspector',
    ],
  ])(
    '%s says so in its status, and does not start where that is refused',
    async (_what, nodeArgs, env, code) => {
      await using agent = await startBuiltAgent({ nodeArgs, env })
      expect(await degraded(agent.adminSocket)).toContain(code)
      const strict = configFile('hardening: { on_degraded: refuse }\n')
      const { status, stderr } = runToEnd(nodeArgs, ['--config', strict], env)
      expect([status, stderr]).toEqual([2, expect.stringContaining('hardening_missing')])
    },
  )

  it('goes on without its audit log where the configuration accepts the gap, and says so', async () => {
    const full = openSync('/dev/full', 'w')
    const config = configFile('audit: { sink: stdout, on_failure: continue }\n')
    await using agent = await startBuiltAgent({ args: ['--config', config], stdout: full })
    closeSync(full)
    expect((await call(agent.socket, 'POST', '/v1/dpop', PROOF)).status).toBe(200)
    expect(await degraded(agent.adminSocket)).toContain('audit_gap')
  })

  it('does not start on a full audit log that it must not do without', () => {
    const full = openSync('/dev/full', 'w')
    const args = ['--config', configFile('audit: { sink: stdout }\n')]
    const { status, stderr } = runToEnd(HARDENED, args, {}, full)
    closeSync(full)
    expect(status).not.toBe(0)
    expect(stderr).toContain('audit_unavailable')
  })

  it('names the line of a wrong setting, and the setting that was meant', () => {
    const { status, stderr } = runToEnd(HARDENED, ['--config', configFile('keys: { rotatoin: 1h }\n')])
    expect([status, stderr]).toEqual([2, expect.stringMatching(/\.yaml:3: .*rotatoin.*rotation/)])
  })

  it('asks what was meant when an argument stands alone, as npm leaves it', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [...HARDENED, 'dist/holdfast.js', 'run', '--dev', '/tmp/somewhere'],
      {
        cwd: ROOT,
        encoding: 'utf8',
        timeout: 20_000,
      },
    )
    expect([status, stderr]).toEqual([2, expect.stringContaining('npm start -- --dir')])
  })
})

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
