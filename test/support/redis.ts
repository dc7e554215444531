/** A real Redis server of the test's own, in a directory of its own, on a unix socket and, when asked, on TLS. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './until.ts'

export interface RedisOptions {
  /** Further arguments, such as `--maxmemory-policy allkeys-lru`. */
  readonly args?: readonly string[]
  readonly tls?: {
    readonly cert: string
    readonly key: string
    readonly ca: string
    /** Whether clients have to show a certificate of that CA. */
    readonly asksClients?: boolean
  }
}

export interface TestRedis extends AsyncDisposable {
  readonly dir: string
  readonly url: string
  /** With TLS, on loopback. */
  readonly tlsUrl: string
  /** What a client of the server's own says: `redis-cli`, as the default user. */
  cli(...args: readonly string[]): string
  /** Ends the server, gently or not; its directory stays. */
  stop(signal?: NodeJS.Signals): Promise<void>
  start(): Promise<void>
}

export const hasRedis = spawnSync('redis-server', ['--version']).status === 0

/** Starts it; nothing is persisted. */
export async function openRedis(options: RedisOptions = {}): Promise<TestRedis> {
  const dir = mkdtempSync(join(tmpdir(), 'hf-redis-'))
  const socket = join(dir, 'redis.sock')
  const port = options.tls ? await freePort() : 0
  const secure = options.tls
    ? ['--tls-port', String(port), '--tls-cert-file', options.tls.cert, '--tls-key-file', options.tls.key]
    : []
  const trust = options.tls
    ? ['--tls-ca-cert-file', options.tls.ca, '--tls-auth-clients', options.tls.asksClients ? 'yes' : 'no']
    : []
  const fixed = [
    '--port',
    '0',
    '--unixsocket',
    socket,
    '--dir',
    dir,
    '--save',
    '',
    '--enable-debug-command',
    'local',
  ]
  let child: ChildProcess | undefined
  const redis: TestRedis = {
    dir,
    url: `redis+unix://${socket}`,
    tlsUrl: `rediss://localhost:${port}`,
    cli: (...args) => spawnSync('redis-cli', ['-s', socket, ...args], { encoding: 'utf8' }).stdout.trim(),
    stop: async (signal = 'SIGTERM') => {
      const running = child
      child = undefined
      if (!running || running.exitCode !== null) return
      const ended = once(running, 'exit')
      running.kill('SIGCONT')
      running.kill(signal)
      await ended
    },
    start: async () => {
      child = spawn('redis-server', [...fixed, ...secure, ...trust, ...(options.args ?? [])], {
        stdio: 'ignore',
      })
      await until('the Redis server', () => answers(socket))
    },
    [Symbol.asyncDispose]: async () => {
      await redis.stop('SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    },
  }
  await redis.start()
  return redis
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path })
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  return typeof address === 'object' && address ? address.port : 0
}
