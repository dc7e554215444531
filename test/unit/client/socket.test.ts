import { chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { problemsOf, problemText } from '../../../src/base/problem.ts'
import {
  adminSockets,
  findSocket,
  onlySocket,
  type SocketPlace,
  workloadSockets,
} from '../../../src/client/socket.ts'
import { faultOf } from '../../support/faults.ts'

const uid = process.geteuid?.() ?? 0
const isRoot = uid === 0

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

async function failed(places: readonly SocketPlace[]): Promise<readonly string[]> {
  try {
    await findSocket(places)
  } catch (error) {
    if (error instanceof Fault) return [error.reason, ...problemsOf(error).map(problemText)]
  }
  throw new Error('a socket was found')
}

const place = (path: string): SocketPlace => ({ path, from: '--socket' })

describe('workloadSockets', () => {
  const endpoint = 'unix:///srv/e.sock'

  it.each([
    ['--socket over everything', { socket: '/a.sock', dir: '/d', endpoint }, ['/a.sock']],
    ['--dir over the environment', { dir: '/d', endpoint }, ['/d/public/workload.sock']],
    ['the environment over the defaults', { endpoint }, ['/srv/e.sock']],
    ['a URI with one slash', { socket: 'unix:/a.sock' }, ['/a.sock']],
    ['a URI with three slashes', { socket: 'unix:///a.sock' }, ['/a.sock']],
  ])('takes %s', (_what, choice, paths) => {
    expect(workloadSockets(choice).map(({ path }) => path)).toEqual(paths)
  })

  it('looks at the machine-wide directory first, then at this user’s own', () => {
    const paths = workloadSockets({}).map(({ path }) => path)
    const own = isRoot ? [] : [`/tmp/holdfast-${uid}/public/workload.sock`]
    expect(paths).toEqual(['/run/holdfast/public/workload.sock', ...own])
  })

  it.each(['tcp://127.0.0.1:8081', 'a.sock', 'unix:a.sock', 'http:///a.sock'])(
    'refuses SPIFFE_ENDPOINT_SOCKET=%s with what is wanted',
    (endpoint) => {
      expect(faultOf(() => workloadSockets({ endpoint }))).toBe(
        `invalid_request: SPIFFE_ENDPOINT_SOCKET names "${endpoint}", wanted unix:///path/to.sock`,
      )
    },
  )
})

describe('adminSockets', () => {
  it('follows the workload socket of the environment', () => {
    const endpoint = 'unix:///srv/hf/public/workload.sock'
    expect(adminSockets({ endpoint }).map(({ path }) => path)).toEqual(['/srv/hf/private/admin.sock'])
  })

  it('falls back to the defaults where that socket is another Workload API', () => {
    const paths = adminSockets({ endpoint: 'unix:///tmp/spire-agent/public/api.sock' }).map(
      ({ path }) => path,
    )
    expect(paths[0]).toBe('/run/holdfast/private/admin.sock')
  })
})

describe('findSocket', () => {
  it('takes the first place where somebody listens', async () => {
    const path = join(dir, 's.sock')
    const server = createServer((socket) => socket.end())
    await new Promise<void>((resolve) => server.listen(path, resolve))
    expect(await findSocket([place(join(dir, 'none.sock')), place(path)])).toBe(path)
    server.close()
  })

  it('says of every place why it did not answer', async () => {
    writeFileSync(join(dir, 'file'), '')
    expect(await failed([place(join(dir, 'none.sock')), place(join(dir, 'file', 'x'))])).toEqual([
      'agent_unreachable',
      `${dir}/none.sock (--socket): does not exist`,
      `${dir}/file/x (--socket): does not exist`,
    ])
    expect(await failed([place(join(dir, 'file'))])).toEqual([
      'agent_unreachable',
      `${dir}/file (--socket): nobody listens: its agent has ended`,
    ])
  })

  it('refuses a path that the kernel would cut', async () => {
    const [reason, why] = await failed([place(join(dir, 'x'.repeat(120)))])
    expect(reason).toBe('agent_unreachable')
    expect(why).toContain('is over 107 bytes')
  })

  it('takes the only place without a look, unless something speaks against it', () => {
    const only = place('/run/x.sock')
    expect(onlySocket([only])).toBe('/run/x.sock')
    expect(onlySocket([only, only])).toBeUndefined()
    expect(onlySocket([{ ...only, guard: '/tmp' }])).toBeUndefined()
    expect(onlySocket([place(`/${'x'.repeat(107)}`)])).toBeUndefined()
    expect(onlySocket([])).toBeUndefined()
  })

  it('does not follow a link in place of this user’s own directory', async () => {
    const guard = join(dir, 'own')
    symlinkSync(dir, guard)
    const [, why] = await failed([{ path: join(guard, 's.sock'), from: 'default', guard }])
    expect(why).toContain(`${guard} is not a directory`)
  })

  it.runIf(isRoot)('does not use a directory that a stranger made first', async () => {
    const guard = join(dir, 'own')
    mkdirSync(guard)
    chownSync(guard, 12_345, 12_345)
    const [, why] = await failed([{ path: join(guard, 's.sock'), from: 'default', guard }])
    expect(why).toContain(`${guard} belongs to uid 12345: not used`)
  })
})
