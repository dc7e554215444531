import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Hasher, type HasherOptions } from '../../../src/attest/hash.ts'
import { systemKernel } from '../../../src/attest/kernel.ts'
import type { Program } from '../../../src/attest/peer.ts'
import { ManualClock } from '../../support/clock.ts'

const OWNER = 'uid:1000'

let folder: string
let clock: ManualClock
let hasher: Hasher
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-'))
  clock = new ManualClock()
  hasher = make()
})
afterEach(() => {
  hasher.stop()
  rmSync(folder, { recursive: true })
})

/** A hasher whose process N runs the file `N` of the folder. */
function make(over: Partial<HasherOptions> = {}): Hasher {
  return new Hasher({ clock, kernel: systemKernel, linkOf: (pid) => join(folder, `${pid}`), ...over })
}

function write(pid: number, content: string | Buffer): void {
  writeFileSync(join(folder, `${pid}`), content)
}

function program(pid: number): Program {
  const path = join(folder, `${pid}`)
  const identity = systemKernel.fileIdentity(path)
  if (!identity) throw new Error('no file')
  return { identity, path }
}

describe('Hasher', () => {
  it('hashes the program that runs, and remembers it while the file stays the same', async () => {
    const real = new Hasher({ clock, kernel: systemKernel })
    const identity = systemKernel.fileIdentity(`/proc/${process.pid}/exe`)
    if (!identity) throw new Error('exe cannot be read')
    const ours = { identity, path: process.execPath }
    const first = real.hash(process.pid, ours, OWNER)
    expect(first).toBeInstanceOf(Promise)
    const sha256 = execFileSync('sha256sum', [process.execPath], { encoding: 'utf8' }).slice(0, 64)
    expect(await first).toMatchObject({ sha256 })
    expect(real.hash(process.pid, ours, OWNER)).toMatchObject({ sha256 })
    real.stop()
  })

  it('gives one answer to many askers of one file, and reads a changed file again', async () => {
    write(1, 'one')
    const asked = program(1)
    const first = hasher.hash(1, asked, OWNER)
    expect(hasher.hash(1, asked, OWNER)).toBe(first)
    expect(await first).toMatchObject({ sha256: createHash('sha256').update('one').digest('hex') })
    write(1, 'another')
    expect(await hasher.hash(1, asked, OWNER)).toMatchObject({
      sha256: createHash('sha256').update('another').digest('hex'),
    })
  })

  it('hashes no other file than the one that was attested', async () => {
    write(1, 'one')
    const asked = program(1)
    write(2, 'two')
    renameSync(join(folder, '2'), join(folder, '1'))
    expect(await hasher.hash(1, asked, OWNER)).toMatchObject({ failure: 'changed' })
  })

  it('refuses files over its limit, and does not look at them twice', async () => {
    hasher = make({ maxBytes: 10 })
    write(1, 'exactly 10')
    write(2, 'eleven byte')
    expect(await hasher.hash(1, program(1), OWNER)).toHaveProperty('sha256')
    expect(await hasher.hash(2, program(2), OWNER)).toMatchObject({ failure: 'too_large' })
    expect(hasher.hash(2, program(2), OWNER)).toMatchObject({ failure: 'too_large' })
  })

  it('refuses file systems that are not known to be local', async () => {
    hasher = make({ linkOf: () => '/proc/self/status' })
    const identity = systemKernel.fileIdentity('/proc/self/status')
    if (!identity) throw new Error('no /proc')
    expect(await hasher.hash(1, { identity, path: '/proc/self/status' }, OWNER)).toMatchObject({
      failure: 'file_system',
    })
  })

  it('says at once that a program cannot be read', () => {
    expect(hasher.hash(1, { identity: { device: '1:1', inode: 1n }, path: '/x' }, OWNER)).toEqual({
      failure: 'unreadable',
    })
  })

  it('gives up on a file that hangs, and hashes the next one in a new thread', async () => {
    const fifo = join(folder, '1')
    execFileSync('mkfifo', [fifo])
    const hung = hasher.hash(1, program(1), OWNER)
    write(2, 'two')
    clock.advance(1_000)
    const next = hasher.hash(2, program(2), OWNER)
    clock.advance(1_000)
    expect(await hung).toMatchObject({ failure: 'deadline' })
    expect(await next).toHaveProperty('sha256')
    // Lets the hung thread go.
    closeSync(openSync(fifo, 'r+'))
  })

  it('takes no more work than it can hold, of one owner and of all', () => {
    const taken = (owner: string) => {
      const before = count
      for (let pid = 1; pid <= 40; pid++) {
        write(pid, `${owner} ${pid}`)
        if (hasher.hash(pid, program(pid), owner) instanceof Promise) count += 1
      }
      return count - before
    }
    let count = 0
    expect(Array.from({ length: 10 }, (_, at) => taken(`uid:${at}`))).toEqual([
      33, 32, 32, 32, 32, 32, 32, 32, 0, 0,
    ])
  })

  it('lets owners take turns: who asks for one waits behind one of each other', async () => {
    const order: string[] = []
    const ask = (pid: number, owner: string) => {
      write(pid, `${pid}`)
      return Promise.resolve(hasher.hash(pid, program(pid), owner)).then(() => order.push(owner))
    }
    const flood = Array.from({ length: 20 }, (_, at) => ask(at + 1, 'uid:1'))
    await Promise.all([...flood, ask(30, 'uid:2')])
    expect(order.indexOf('uid:2')).toBeLessThanOrEqual(2)
  })

  it('remembers what is asked for, however many other files are seen once', async () => {
    write(1, 'one')
    const asked = program(1)
    await hasher.hash(1, asked, OWNER)
    for (let pid = 2; pid <= 1_100; pid++) {
      write(pid, `${pid}`)
      await hasher.hash(pid, program(pid), 'uid:1')
      if (pid % 100 === 0) await hasher.hash(1, asked, OWNER)
    }
    expect(hasher.hash(1, asked, OWNER)).toHaveProperty('sha256')
  })

  it('hashes no more for an owner whose file hangs, and goes on for others', async () => {
    const fifo = join(folder, '1')
    execFileSync('mkfifo', [fifo])
    const hung = hasher.hash(1, program(1), 'uid:1')
    clock.advance(2_000)
    expect(await hung).toMatchObject({ failure: 'deadline' })
    write(2, 'two')
    expect(hasher.hash(2, program(2), 'uid:1')).toMatchObject({ failure: 'deadline' })
    expect(await hasher.hash(2, program(2), 'uid:2')).toHaveProperty('sha256')
    closeSync(openSync(fifo, 'r+'))
  })

  it('answers everyone when it stops', async () => {
    write(1, 'one')
    const waiting = hasher.hash(1, program(1), OWNER)
    hasher.stop()
    expect(await waiting).toMatchObject({ failure: 'deadline' })
  })
})
