import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { answeringPid, SocketPath } from '../../../src/serve/socket-path.ts'
import { ManualClock } from '../../support/clock.ts'
import { PYTHON } from '../../support/socket-door.ts'

let dir: string
let path: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-path-'))
  path = join(dir, 'a.sock')
})
afterEach(() => rmSync(dir, { recursive: true }))

/** Listens and lets nobody in; says so by a line. */
const DEAF = `import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(int(sys.argv[2]))
print("listening", flush=True)
sys.stdin.read()`

describe('who answers on a path', () => {
  it('is nobody where there is no socket, or one that nobody listens on', async () => {
    expect(await answeringPid(path)).toBeUndefined()
    writeFileSync(path, '')
    expect(await answeringPid(path)).toBeUndefined()
    rmSync(path)
    const child = spawn(PYTHON, ['-c', DEAF, path, '1'], { stdio: ['pipe', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(await answeringPid(path)).toBeUndefined()
  })

  it('is the process that listens, whether or not it lets anybody in', async () => {
    const server = createServer().listen(path)
    await once(server, 'listening')
    expect(await answeringPid(path)).toBe(process.pid)
    server.close()
    const deaf = spawn(PYTHON, ['-c', DEAF, path, '8'], { stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      await once(deaf.stdout, 'data')
      expect(await answeringPid(path)).toBe(deaf.pid)
    } finally {
      deaf.kill('SIGKILL')
    }
  })

  it('is somebody when the queue is full: an agent that is overrun keeps its path', async () => {
    const deaf = spawn(PYTHON, ['-c', DEAF, path, '1'], { stdio: ['pipe', 'pipe', 'inherit'] })
    const sockets: Socket[] = []
    try {
      await once(deaf.stdout, 'data')
      const isLetIn = () =>
        new Promise<boolean>((resolve) => {
          const socket = connect({ path })
          sockets.push(socket)
          socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
        })
      while (await isLetIn()) expect(sockets.length).toBeLessThan(10)
      expect(await answeringPid(path)).toBe(0)
    } finally {
      for (const socket of sockets) socket.destroy()
      deaf.kill('SIGKILL')
    }
  })
})

describe('a socket', () => {
  it('is open although an agent of the same pid was killed before it had the path: in a container all have one', async () => {
    const left = `${path}.${process.pid}.1`
    const child = spawn(PYTHON, ['-c', DEAF, left, '1'], { stdio: ['pipe', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    child.kill('SIGKILL')
    await once(child, 'exit')
    const ignore = () => {}
    const rest = { mode: 0o777, takeover: true, accept: ignore, onTaken: ignore, onBack: ignore }
    const socket = new SocketPath({ ...rest, path, clock: new ManualClock() })
    await socket.open()
    expect([socket.state, await answeringPid(path)]).toEqual(['active', process.pid])
    socket.close()
    expect(readdirSync(dir)).toEqual([])
  })
})
