/** `holdfast exec`: a command with a private socket, before a real agent, a real authorization server and a target. */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ROOT } from '../support/built-agent.ts'
import { type RelayRig, startRelayRig, tell } from '../support/relay-rig.ts'
import { isRoot, PYTHON } from '../support/socket-door.ts'
import { until } from '../support/until.ts'

const COMMAND = join(ROOT, 'dist', 'holdfast.js')
const CURL = 'curl -s --unix-socket "$HOLDFAST_EGRESS_SOCKET"'

let rig: RelayRig
beforeAll(async () => {
  execFileSync(process.execPath, ['.setup.cjs'], { cwd: ROOT, stdio: 'inherit' })
  rig = await startRelayRig()
})
afterAll(async () => {
  await rig?.[Symbol.asyncDispose]()
})

interface Ran {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

/** Starts the built command; `said` is its standard output so far. */
function start(args: readonly string[], endpoint = rig.agent.socket) {
  const env = { PATH: process.env['PATH'] ?? '', SPIFFE_ENDPOINT_SOCKET: `unix://${endpoint}` }
  const child = spawn(process.execPath, [COMMAND, 'exec', ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] })
  let [out, err] = ['', '']
  child.stdout.on('data', (chunk) => {
    out += chunk
  })
  child.stderr.on('data', (chunk) => {
    err += chunk
  })
  const ended = new Promise<Ran>((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal, out, err })),
  )
  return { child, ended, said: () => out }
}

const sh = (script: string, ...options: string[]) => start([...options, '--', 'sh', '-c', script]).ended

describe('a command', () => {
  it('reaches a target with neither key nor token, by the session of holdfast exec', async () => {
    const running = start(['--', 'sh', '-c', `${CURL} http://orders/echo; echo; cat /proc/$PPID/stat; env`])
    const { code, out, err } = await running.ended
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toContain('"sub":"shop"')
    expect(rig.orders.requests.at(-1)?.headers.authorization).toMatch(/^DPoP /)
    const asked = rig.agent.records.filter(({ event }) => event === 'egress').at(-1)
    expect(asked).toMatchObject({ allowed: true, target: 'orders', pid: running.child.pid })
    expect(out).not.toMatch(/eyJ|DPoP /)
  })

  it('has a socket for its user alone, which is gone afterwards', async () => {
    const running = start(['--', 'sh', '-c', 'echo "$HOLDFAST_EGRESS_SOCKET"; read wait'])
    const path = (await until('the path', () => /^(.+)\n/.exec(running.said())))[1] ?? ''
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(statSync(dirname(path)).mode & 0o777).toBe(0o700)
    running.child.stdin.end()
    expect((await running.ended).code).toBe(1)
    expect(existsSync(dirname(path))).toBe(false)
  })

  it('may have children, and theirs, that use it', async () => {
    const { out } = await sh(`sh -c 'sh -c "${CURL.replaceAll('"', '\\"')} http://orders/echo; :"; :'; :`)
    expect(out).toContain('"sub":"shop"')
  })

  it.each([
    ['exit 0', 0, null],
    ['exit 42', 42, null],
    ['kill -TERM $$', null, 'SIGTERM'],
    ['kill -KILL $$', null, 'SIGKILL'],
  ])('that ends by %s ends holdfast exec likewise', async (script, code, signal) => {
    expect(await sh(script)).toMatchObject({ code, signal })
  })

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1'] as const)('hears %s, and may go on', async (signal) => {
    const name = signal.slice(3)
    const running = start([
      '--',
      'sh',
      '-c',
      `trap 'echo heard; exit 7' ${name}; echo up; while :; do sleep 0.05; done`,
    ])
    await until('the command', () => running.said().includes('up'))
    running.child.kill(signal)
    expect(await running.ended).toMatchObject({ code: 7, out: 'up\nheard\n', err: '' })
  })

  it('keeps its own arguments and streams', async () => {
    const running = start(['--', 'sh', '-c', 'cat; echo "$@" >&2', 'sh', '-o', 'json', '--only'])
    running.child.stdin.end('in\n')
    expect(await running.ended).toMatchObject({ code: 0, out: 'in\n', err: '-o json --only\n' })
  })

  it('that is not there is a usage error', async () => {
    const { code, err } = await start(['--', '/nowhere/job']).ended
    expect(code).toBe(2)
    expect(err).toContain('/nowhere/job cannot be started (ENOENT)')
  })

  it('is not started without an agent', async () => {
    const { code, out } = await start(['--', 'echo', 'started'], '/nowhere/workload.sock').ended
    expect({ code, out }).toEqual({ code: 3, out: '' })
  })
})

describe('the session', () => {
  it('has keys of its own, which no other session has', async () => {
    const running = start(['--', 'sh', '-c', `${CURL} http://orders/echo; read wait`])
    await until('the answer', () => running.said().includes('jkt'))
    const jkt = JSON.parse(running.said()).jkt
    running.child.stdin.end()
    await running.ended
    await sh(`${CURL} http://orders/echo`)
    const { out } = await sh(`${CURL} http://orders/echo`)
    expect(JSON.parse(out).jkt).not.toBe(jkt)
  })

  it('is nobody else’s, whatever their user', async () => {
    const running = start(['--', 'sh', '-c', 'echo "$HOLDFAST_EGRESS_SOCKET"; read wait'])
    const path = (await until('the path', () => /^(.+)\n/.exec(running.said())))[1] ?? ''
    const before = rig.orders.requests.length
    const heard = await tell({ path }, 'GET /echo HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n')
    expect(heard).toMatchObject({ status: 403, reason: 'session_foreign' })
    expect(rig.orders.requests.length).toBe(before)
    running.child.stdin.end()
    await running.ended
  })

  it('is not for a daemon that has left the tree', async () => {
    const script = `
import os, socket, sys, time
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        while os.getppid() != 1 and os.getppid() == int(sys.argv[1]):
            time.sleep(0.01)
        time.sleep(0.1)
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.environ["HOLDFAST_EGRESS_SOCKET"])
        s.sendall(b"GET /echo HTTP/1.1\\r\\nHost: orders\\r\\nConnection: close\\r\\n\\r\\n")
        print(s.recv(65536).decode(), flush=True)
    os._exit(0)
os.wait()
sys.stdin.readline()
`
    const running = start(['--', PYTHON, '-c', script, '0'])
    await until('an answer to the daemon', () => running.said().includes('\r\n\r\n'))
    running.child.stdin.end()
    expect((await running.ended).out).toContain('Holdfast-Reason: session_foreign')
  })

  it('lets through what --only names, and says what it refuses', async () => {
    const head = `${CURL} -o /dev/null -w '%{http_code} %header{holdfast-reason}\\n'`
    const script = `${head} http://orders/echo; ${head} -X POST http://orders/echo; ${head} http://stock/echo; ${head} http://orders/echo -H 'Host: stock'`
    const { out } = await sh(script, '--only', 'orders:GET')
    expect(out).toBe('200 \n403 session_narrowed\n403 session_narrowed\n403 session_narrowed\n')
    const { out: plain } = await sh(`${head} http://stock/echo`)
    expect(plain).toBe('403 via_sidecar\n')
  })

  it('refuses --only that names no target, before anything is started', async () => {
    const { code, err, out } = await sh('echo started', '--only', 'http://orders')
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toContain('is not TARGET or TARGET:METHOD')
  })

  it.runIf(isRoot)('is attested by the agent as the user who runs it', async () => {
    const { out } = await sh(
      `setpriv --reuid=12345 --clear-groups ${process.execPath} -e 0; ${CURL} http://orders/echo`,
    )
    expect(out).toContain('"sub":"shop"')
  })
})

describe('the CI job of the examples', () => {
  const job = join(ROOT, 'deploy/examples/ci-job/job.sh')

  it('calls the protected API, and holds no token', async () => {
    const { code, out, err } = await start(['--only', 'orders:GET', '--', job, '/echo']).ended
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toContain('"sub":"shop"')
    expect(readFileSync(job, 'utf8')).not.toMatch(/secret|Authorization/i)
  })

  it('says what is missing outside of holdfast exec', async () => {
    const child = spawn(job, [], { env: { PATH: process.env['PATH'] ?? '' } })
    let err = ''
    child.stderr.on('data', (chunk) => {
      err += chunk
    })
    const code = await new Promise((resolve) => child.once('close', resolve))
    expect(code).not.toBe(0)
    expect(err).toContain('run this job below holdfast exec')
  })
})
