import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Watch, watchFiles } from '../../../src/base/watch.ts'
import { ManualClock } from '../../support/clock.ts'
import { until } from '../../support/until.ts'

const POLL = 5_000
const SETTLE = 250

describe('watchFiles', () => {
  let dir: string
  let clock: ManualClock
  let changes: number
  let watch: Watch | undefined
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
    clock = new ManualClock()
    changes = 0
  })
  afterEach(() => {
    watch?.close()
    rmSync(dir, { recursive: true, force: true })
  })

  const at = (...parts: string[]) => join(dir, ...parts)
  const start = (...paths: string[]) => {
    watch = watchFiles(paths, clock, () => {
      changes += 1
    })
  }
  /** Time enough for the poll and for two looks. */
  const settle = () => clock.advance(POLL + 3 * SETTLE)

  it.each<[string, () => void]>([
    ['an edit', () => writeFileSync(at('a.yaml'), 'b, longer')],
    [
      'a rename over it',
      () => {
        writeFileSync(at('.a.swp'), 'x')
        renameSync(at('.a.swp'), at('a.yaml'))
      },
    ],
    ['its deletion', () => rmSync(at('a.yaml'))],
    [
      'a directory in its place',
      () => {
        rmSync(at('a.yaml'))
        mkdirSync(at('a.yaml'))
      },
    ],
  ])('tells once of %s', (_what, change) => {
    writeFileSync(at('a.yaml'), 'a')
    start(at('a.yaml'))
    settle()
    expect(changes).toBe(0)
    change()
    settle()
    expect(changes).toBe(1)
    settle()
    expect(changes).toBe(1)
  })

  it('tells of a file that comes, goes and comes again', () => {
    start(at('later', 'a.yaml'))
    mkdirSync(at('later'))
    writeFileSync(at('later', 'a.yaml'), 'a')
    settle()
    expect(changes).toBe(1)
    rmSync(at('later'), { recursive: true })
    settle()
    expect(changes).toBe(2)
    mkdirSync(at('later'))
    writeFileSync(at('later', 'a.yaml'), 'a')
    settle()
    expect(changes).toBe(3)
  })

  it('tells once when a ConfigMap volume swaps its symlink', () => {
    for (const version of ['..1', '..2']) {
      mkdirSync(at(version))
      writeFileSync(at(version, 'a.yaml'), version)
    }
    symlinkSync('..1', at('..data'))
    symlinkSync('..data/a.yaml', at('a.yaml'))
    start(at('a.yaml'))
    symlinkSync('..2', at('..data_tmp'))
    renameSync(at('..data_tmp'), at('..data'))
    rmSync(at('..1'), { recursive: true })
    settle()
    expect(changes).toBe(1)
  })

  it.each(['', '*.yaml'])('tells of a file that is added to a directory (%s)', (pattern) => {
    mkdirSync(at('policy'))
    start(at('policy', pattern))
    writeFileSync(at('policy', 'b.yaml'), 'b')
    settle()
    expect(changes).toBe(1)
    writeFileSync(at('policy', 'b.yaml'), 'b, longer')
    settle()
    expect(changes).toBe(2)
  })

  it('waits until a writer has finished, but not for ever', () => {
    writeFileSync(at('a.yaml'), '')
    start(at('a.yaml'))
    writeFileSync(at('a.yaml'), 'x')
    clock.advance(POLL)
    for (let size = 2; size < 6; size++) {
      writeFileSync(at('a.yaml'), 'x'.repeat(size))
      clock.advance(SETTLE)
      expect(changes).toBe(0)
    }
    for (let size = 6; size < 20; size++) {
      writeFileSync(at('a.yaml'), 'x'.repeat(size))
      clock.advance(SETTLE)
    }
    expect(changes).toBeGreaterThan(0)
  })

  it('says nothing when a change is taken back before it settles', () => {
    writeFileSync(at('b.yaml'), 'b')
    start(at('a.yaml'))
    renameSync(at('b.yaml'), at('a.yaml'))
    clock.advance(POLL)
    renameSync(at('a.yaml'), at('b.yaml'))
    settle()
    expect(changes).toBe(0)
  })

  it('hears from the kernel long before the poll', async () => {
    writeFileSync(at('a.yaml'), 'a')
    start(at('a.yaml'))
    writeFileSync(at('a.yaml'), 'b, longer')
    await until('the change', () => {
      clock.advance(10)
      return changes === 1
    })
    expect(clock.monotonic()).toBeLessThan(POLL)
  })

  it('is silent once it is closed', () => {
    writeFileSync(at('a.yaml'), 'a')
    start(at('a.yaml'))
    writeFileSync(at('a.yaml'), 'b, longer')
    clock.advance(POLL)
    watch?.close()
    settle()
    expect(changes).toBe(0)
  })
})
