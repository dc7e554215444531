import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Fault } from '../../../src/base/fault.ts'
import { readTrusted, trustedPath } from '../../../src/base/trusted.ts'

const isRoot = process.geteuid?.() === 0
const STRANGER = 4242

describe('readTrusted', () => {
  let dir: string
  let file: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
    file = join(dir, 'policy', 'a.yaml')
    mkdirSync(join(dir, 'policy'), { mode: 0o755 })
    writeFileSync(file, 'text', { mode: 0o644 })
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  const read = (options = {}) => readTrusted(file, { maxBytes: 100, ...options }).toString()
  const instead = (make: () => unknown) => {
    rmSync(file)
    make()
  }
  const reasonOf = (act: () => unknown) => {
    try {
      act()
      return 'read'
    } catch (error) {
      return (error as Fault).reason
    }
  }

  it('reads a file that only its owner may write', () => {
    expect(read()).toBe('text')
  })

  it('reads through symlinks of its own, as ConfigMap volumes have them', () => {
    const volume = join(dir, 'volume')
    mkdirSync(join(volume, '..2030'), { recursive: true, mode: 0o755 })
    writeFileSync(join(volume, '..2030', 'a.yaml'), 'mapped', { mode: 0o644 })
    symlinkSync('..2030', join(volume, '..data'))
    symlinkSync('..data/a.yaml', join(volume, 'a.yaml'))
    expect(trustedPath(join(volume, 'a.yaml'))).toBe(join(volume, '..2030', 'a.yaml'))
    expect(readTrusted(join(volume, 'a.yaml'), { maxBytes: 100 }).toString()).toBe('mapped')
  })

  it.each<[string, () => void, string]>([
    ['the group may write the file', () => chmodSync(file, 0o664), 'policy_writable'],
    ['others may write the file', () => chmodSync(file, 0o646), 'policy_writable'],
    ['others may write its directory', () => chmodSync(join(dir, 'policy'), 0o757), 'policy_writable'],
    ['the group may write a directory further up', () => chmodSync(dir, 0o770), 'policy_writable'],
    ['it does not exist', () => rmSync(file), 'config_invalid'],
    ['it is a directory', () => instead(() => mkdirSync(file)), 'config_invalid'],
    ['it is too large', () => writeFileSync(file, 'x'.repeat(101)), 'config_invalid'],
    ['it is a symlink to itself', () => instead(() => symlinkSync(file, file)), 'config_invalid'],
    [
      'it is a pipe that nobody writes to',
      () => instead(() => spawnSync('mkfifo', [file])),
      'config_invalid',
    ],
    [
      'a symlink leads to where others may write',
      () => {
        const open = join(dir, 'open')
        mkdirSync(open)
        renameSync(file, join(open, 'b.yaml'))
        chmodSync(open, 0o777)
        symlinkSync('../open/b.yaml', file)
      },
      'policy_writable',
    ],
  ])('refuses a file when %s', (_what, spoil, reason) => {
    spoil()
    expect(reasonOf(read)).toBe(reason)
  })

  it('reads from a sticky directory, where nobody can replace what is not theirs', () => {
    chmodSync(join(dir, 'policy'), 0o1777)
    expect(read()).toBe('text')
  })

  it.runIf(isRoot).each<[string, () => void]>([
    ['the file', () => chownSync(file, STRANGER, STRANGER)],
    ['its directory', () => chownSync(join(dir, 'policy'), STRANGER, STRANGER)],
    [
      'a symlink to it in a sticky directory',
      () => {
        renameSync(file, join(dir, 'b.yaml'))
        chmodSync(join(dir, 'policy'), 0o1777)
        symlinkSync('../b.yaml', file)
        lchownSync(file, STRANGER, STRANGER)
      },
    ],
  ])('refuses a file when somebody else owns %s', (_what, spoil) => {
    spoil()
    expect(reasonOf(read)).toBe('policy_writable')
  })

  it.each([
    [0o600, 'read'],
    [0o640, 'read'],
    [0o604, 'policy_writable'],
    [0o644, 'policy_writable'],
  ])('answers a key of mode %s by %s', (mode, expected) => {
    chmodSync(file, mode)
    expect(reasonOf(() => read({ secret: true }))).toBe(expected)
  })
})
