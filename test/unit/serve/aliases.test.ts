import { once } from 'node:events'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ALIAS, linkAliases } from '../../../src/serve/aliases.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const link = (...names: string[]) => linkAliases(join(dir, 'workload.sock'), names)

describe('linkAliases', () => {
  it('makes relative links, the second time too, and leaves nothing else behind', () => {
    link('socket', 'api.sock')
    link('socket', 'api.sock')
    expect(readdirSync(dir).map((name) => [name, readlinkSync(join(dir, name))])).toEqual([
      ['api.sock', 'workload.sock'],
      ['socket', 'workload.sock'],
    ])
  })

  it('makes links although an agent of the same pid was killed while it made one', () => {
    symlinkSync('workload.sock', join(dir, `socket.${process.pid}`))
    link('socket')
    expect(readdirSync(dir)).toEqual(['socket'])
  })

  it('mends a link that leads elsewhere', () => {
    symlinkSync('/run/other.sock', join(dir, 'socket'))
    link('socket')
    expect(readlinkSync(join(dir, 'socket'))).toBe('workload.sock')
  })

  it('replaces a socket of somebody else, and says so', async () => {
    const path = join(dir, 'socket')
    const other = createServer().listen(path)
    await once(other, 'listening')
    expect(link('socket', 'api.sock')).toEqual(['socket'])
    expect(readlinkSync(path)).toBe('workload.sock')
    other.close()
  })

  it.each([
    ['a file', (path: string) => writeFileSync(path, '')],
    ['a directory', (path: string) => mkdirSync(path)],
  ])('never replaces %s', (_what, make) => {
    make(join(dir, 'socket'))
    expect(() => link('socket')).toThrowError(
      expect.objectContaining({ reason: 'socket_unusable' }) as unknown as Error,
    )
  })
})

describe('ALIAS', () => {
  it.each(['socket', 'api.sock', 'spire-agent.sock'])('takes %s', (name) => expect(name).toMatch(ALIAS))
  it.each(['workload.sock', 'egress.sock', 'verifier.sock', '..', '.hidden', 'a/b', '', 'a'.repeat(65)])(
    'takes no %j',
    (name) => expect(name).not.toMatch(ALIAS),
  )
})
