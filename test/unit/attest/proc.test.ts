import { describe, expect, it } from 'vitest'
import { parseStartTime, parseStatus, readProcess } from '../../../src/attest/proc.ts'

const stat = (name: string, state: string) =>
  `42 (${name}) ${state} 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200`
const STATUS = `Name:\tapp
Umask:\t0022
State:\tS (sleeping)
Uid:\t1000\t1001\t1002\t1003
Gid:\t2000\t2001\t2002\t2003
Groups:\t4 24 2001 
NSpid:\t42
`

describe('parseStartTime', () => {
  it.each(['app', 'two words', 'a) R 1 2 (b', '()', ')'])('is not misled by a program called %j', (name) => {
    expect(parseStartTime(stat(name, 'S'))).toBe('987654')
  })

  it.each([
    ['a zombie', stat('app', 'Z')],
    ['a dead process', stat('app', 'X')],
    ['nothing', ''],
    ['a cut-off line', '42 (app) S 1 42'],
  ])('finds none of %s', (_what, text) => {
    expect(parseStartTime(text)).toBeUndefined()
  })
})

describe('parseStatus', () => {
  it('reads the effective ids, groups and the pid in each namespace', () => {
    expect(parseStatus(STATUS)).toEqual({ uid: 1001, gid: 2001, groups: [4, 24, 2001], namespacePids: [42] })
    expect(parseStatus(STATUS.replace('NSpid:\t42', 'NSpid:\t42\t7'))?.namespacePids).toEqual([42, 7])
    expect(parseStatus(STATUS.replace('4 24 2001 ', ''))?.groups).toEqual([])
  })

  it.each(['Uid', 'Gid', 'NSpid'])('gives nothing without %s', (field) => {
    expect(parseStatus(STATUS.replace(`${field}:`, 'Other:'))).toBeUndefined()
  })

  it('takes no field from a program name', () => {
    const status = STATUS.replace('Name:\tapp', 'Name:\tUid:\\nUid:\t0\t0')
    expect(parseStatus(status)?.uid).toBe(1001)
  })
})

describe('readProcess', () => {
  it('reads this process', () => {
    expect(readProcess(process.pid)).toMatchObject({
      uid: process.geteuid?.(),
      gid: process.getegid?.(),
      startTime: expect.stringMatching(/^\d+$/),
    })
  })

  it('gives nothing of a process that is not there', () => {
    expect(readProcess(2 ** 22)).toBeUndefined()
  })
})
