/** A real nginx of the test's own: its configuration in a directory of its own, in the foreground; ended by pid. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './until.ts'

/** Debian keeps it where only root looks. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin`

export const hasNginx = spawnSync('nginx', ['-v'], { env: { PATH } }).status === 0

export interface TestNginx extends AsyncDisposable {
  readonly pid: number
  /** What it complained about. */
  errors(): string
}

/** Starts it with `http` as its http block; waits until `port` takes connections. */
export async function startNginx(http: string, port: number): Promise<TestNginx> {
  const dir = mkdtempSync(join(tmpdir(), 'hf-nginx-'))
  const log = join(dir, 'error.log')
  const file = join(dir, 'nginx.conf')
  writeFileSync(file, configOf(dir, http))
  const args = ['-p', dir, '-c', file, '-e', log]
  const child = spawn('nginx', args, { env: { PATH }, stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (chunk) => (said += chunk))
  const errors = () => `${said}${readFileSync(log, { encoding: 'utf8', flag: 'a+' })}`
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      await ended
    }
    rmSync(dir, { recursive: true, force: true })
  }
  try {
    await until('nginx', () => {
      if (child.exitCode !== null) throw new Error(`nginx ended with ${child.exitCode}:\n${errors()}`)
      return answers(port)
    })
  } catch (error) {
    await stop()
    throw error
  }
  return { pid: child.pid ?? 0, errors, [Symbol.asyncDispose]: stop }
}

function configOf(dir: string, http: string): string {
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const places = kinds.map((kind) => `  ${kind}_temp_path ${join(dir, kind)};\n`).join('')
  // Workers of another user could not open the sockets and files of a test.
  const user = process.getuid?.() === 0 ? 'user root;\n' : ''
  return `${user}daemon off;
worker_processes 1;
pid ${join(dir, 'nginx.pid')};
events { worker_connections 512; }
http {
  access_log off;
${places}  proxy_cache_path ${join(dir, 'cache')} keys_zone=answers:1m;
${http}}
`
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket
      .once('error', () => resolve(false))
      .once('connect', () => {
        socket.destroy()
        resolve(true)
      })
  })
}
