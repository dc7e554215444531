import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Accounts, parseNames } from '../../../src/attest/accounts.ts'
import { ManualClock } from '../../support/clock.ts'

describe('parseNames', () => {
  it('reads passwd and group lines, the first name of a number first', () => {
    const text = 'root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nweb:x:1000:\nlast:x:7:a,b'
    expect([...parseNames(text)]).toEqual([
      [0, 'root'],
      [1000, 'web'],
      [7, 'last'],
    ])
  })

  it.each([
    ['a comment', '#root:x:0:0'],
    ['an NIS line', '+::0:0'],
    ['no number', 'web:x::1'],
    ['a number with a sign', 'web:x:-1:1'],
    ['a number of 33 bits', 'web:x:4294967296:1'],
    ['a number with more after it', 'web:x:1000x:1'],
    ['no name', ':x:1000:1'],
    ['a name with a space', 'we b:x:1000:1'],
    ['one field', 'web'],
    ['an empty line', ''],
  ])('leaves out %s', (_what, line) => {
    expect(parseNames(line).size).toBe(0)
  })
})

describe('Accounts', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  it('learns of a changed file within a second, and forgets one that is gone', () => {
    const clock = new ManualClock()
    const passwd = join(folder, 'passwd')
    const accounts = new Accounts(clock, passwd, join(folder, 'group'))
    writeFileSync(passwd, 'web:x:1000:1::/:')
    expect(accounts.userName(1000)).toBe('web')
    expect(accounts.groupName(1000)).toBeUndefined()
    writeFileSync(`${passwd}.new`, 'app:x:1000:1::/:')
    renameSync(`${passwd}.new`, passwd)
    expect(accounts.userName(1000)).toBe('web')
    clock.advance(1_000)
    expect(accounts.userName(1000)).toBe('app')
    rmSync(passwd)
    clock.advance(1_000)
    expect(accounts.userName(1000)).toBeUndefined()
  })

  it('refuses a file that would fill the memory', () => {
    const passwd = join(folder, 'passwd')
    writeFileSync(passwd, `web:x:1000:1::/:\n${'#'.repeat(17 * 1024 * 1024)}`)
    expect(new Accounts(new ManualClock(), passwd).userName(1000)).toBeUndefined()
  })
})
