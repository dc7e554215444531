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
    const first = real.hash(process.pid, ours)
    expect(first).toBeInstanceOf(Promise)
    const sha256 = execFileSync('sha256sum', [process.execPath], { encoding: 'utf8' }).slice(0, 64)
    expect(await first).toMatchObject({ sha256 })
    expect(real.hash(process.pid, ours)).toMatchObject({ sha256 })
    real.stop()
  })

  it('gives one answer to many askers of one file, and reads a changed file again', async () => {
    write(1, 'one')
    const asked = program(1)
    const first = hasher.hash(1, asked)
    expect(hasher.hash(1, asked)).toBe(first)
    expect(await first).toMatchObject({ sha256: createHash('sha256').update('one').digest('hex') })
    write(1, 'another')
    expect(await hasher.hash(1, asked)).toMatchObject({
      sha256: createHash('sha256').update('another').digest('hex'),
    })
  })

  it('hashes no other file than the one that was attested', async () => {
    write(1, 'one')
    const asked = program(1)
    write(2, 'two')
    renameSync(join(folder, '2'), join(folder, '1'))
    expect(await hasher.hash(1, asked)).toMatchObject({ failure: 'changed' })
  })

  it('refuses files over its limit, and does not look at them twice', async () => {
    hasher = make({ maxBytes: 10 })
    write(1, 'exactly 10')
    write(2, 'eleven byte')
    expect(await hasher.hash(1, program(1))).toHaveProperty('sha256')
    expect(await hasher.hash(2, program(2))).toMatchObject({ failure: 'too_large' })
    expect(hasher.hash(2, program(2))).toMatchObject({ failure: 'too_large' })
  })

  it('refuses file systems that are not known to be local', async () => {
    hasher = make({ linkOf: () => '/proc/self/status' })
    const identity = systemKernel.fileIdentity('/proc/self/status')
    if (!identity) throw new Error('no /proc')
    expect(await hasher.hash(1, { identity, path: '/proc/self/status' })).toMatchObject({
      failure: 'file_system',
    })
  })

  it('says at once that a program cannot be read', () => {
    expect(hasher.hash(1, { identity: { device: '1:1', inode: 1n }, path: '/x' })).toEqual({
      failure: 'unreadable',
    })
  })

  it('gives up on a file that hangs, and hashes the next one in a new thread', async () => {
    const fifo = join(folder, '1')
    execFileSync('mkfifo', [fifo])
    const hung = hasher.hash(1, program(1))
    write(2, 'two')
    clock.advance(1_000)
    const next = hasher.hash(2, program(2))
    clock.advance(1_000)
    expect(await hung).toMatchObject({ failure: 'deadline' })
    expect(await next).toHaveProperty('sha256')
    // Lets the hung thread go.
    closeSync(openSync(fifo, 'r+'))
  })

  it('takes no more work than it can hold', () => {
    const kept: unknown[] = []
    for (let pid = 1; pid <= 300; pid++) {
      write(pid, `${pid}`)
      kept.push(hasher.hash(pid, program(pid)))
    }
    expect(kept.filter((answer) => answer instanceof Promise).length).toBe(257)
    expect(kept.at(-1)).toEqual({ failure: 'deadline' })
  })

  it('answers everyone when it stops', async () => {
    write(1, 'one')
    const waiting = hasher.hash(1, program(1))
    hasher.stop()
    expect(await waiting).toMatchObject({ failure: 'deadline' })
  })
})
