import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { Secret } from '../../../src/base/secret.ts'
import { type LogFacts, type LogLevel, openLog } from '../../../src/telemetry/log.ts'
import { ManualClock } from '../../support/clock.ts'

describe('openLog', () => {
  let directory: string
  let fd: number
  const file = () => join(directory, 'log')
  const text = () => readFileSync(file(), 'utf8')
  const records = () =>
    text()
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line))
  const open = (level: LogLevel = 'info') => openLog({ level, fd, clock: new ManualClock(1_700_000_000_000) })
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'holdfast-'))
    fd = openSync(file(), 'a')
  })
  afterEach(() => {
    closeSync(fd)
    rmSync(directory, { recursive: true })
  })

  it('writes one JSON line with level, ISO time and message, and nothing of the host or process', () => {
    open().warn('policy kept', { reason: 'policy_invalid', line: 3 })
    expect(text()).toBe(
      '{"level":"warn","time":"2023-11-14T22:13:20.000Z","reason":"policy_invalid","line":3,"message":"policy kept"}\n',
    )
  })

  it('writes only lines at or above its level, which can change', () => {
    const log = open('warn')
    log.info('one')
    log.setLevel('debug')
    log.debug('two')
    log.setLevel('error')
    log.warn('three')
    expect([log.level, records().map((record) => record.message)]).toEqual(['error', ['two']])
  })

  it('drops every field that is not listed or has another type', () => {
    const hostile = {
      token: 'canary',
      proof: 'canary',
      nonce: 'canary',
      pid: '1',
      spiffe_id: { canary: 1 },
    }
    open().info('x', hostile as unknown as LogFacts)
    expect(records()).toEqual([{ level: 'info', time: expect.any(String), message: 'x' }])
  })

  it.each([
    ['an error with a secret cause', new Fault('bug', undefined, { cause: new Error('canary') })],
    [
      'an error whose library put the request on it',
      Object.assign(new Error('canary'), { config: 'canary' }),
    ],
    ['a secret', { entry: new Secret('canary') }],
    ['an inherited field', Object.create({ entry: 'canary' })],
  ])('never shows what %s carries', (_what, facts) => {
    open().error('failed', facts as LogFacts)
    expect(text()).not.toContain('canary')
  })

  it.each(['a\nb', 'a\r\nb', 'a\u001b[2Kb', 'a\u2028b', 'a\u0000b', 'a\u202eb', 'a\u009bb'])(
    'keeps %j from forging a line or steering a terminal',
    (value) => {
      open().info(value, { target: value })
      expect(text().match(/\n/g)).toHaveLength(1)
      expect(records()[0]).toMatchObject({
        target: expect.stringContaining('\ufffd'),
        message: expect.stringContaining('\ufffd'),
      })
    },
  )

  it('takes a percent sign in a message as text', () => {
    open().info('%s %o %% done', { count: 1 })
    expect(records()[0].message).toBe('%s %o %% done')
  })

  it('goes on without a descriptor and says how many lines were lost', () => {
    const full = openSync('/dev/full', 'w')
    const log = openLog({ level: 'info', fd: full })
    expect(() => log.info('one')).not.toThrow()
    expect(() => log.info('two')).not.toThrow()
    closeSync(full)
    const reopened = openSync(file(), 'a')
    expect(reopened).toBe(full)
    log.info('three')
    closeSync(reopened)
    expect(records().map(({ message, count }) => [message, count])).toEqual([
      ['log lines were lost: the descriptor did not take them', 2],
      ['three', undefined],
    ])
  })

  it('starts a new line after one that a full pipe took half of', () => {
    const fifo = join(directory, 'fifo')
    execFileSync('mkfifo', [fifo])
    const pipe = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK)
    const log = openLog({ level: 'info', fd: pipe })
    // A write of up to 4,096 bytes is taken whole or not at all.
    const long = 'x'.repeat(1_000)
    const facts = {
      reason: long,
      owner: long,
      action: long,
      entry: long,
      target: long,
    }
    const bytes = Buffer.alloc(1024 * 1024)
    const drain = () => bytes.subarray(0, readSync(pipe, bytes)).toString()
    for (let line = 0; line < 20; line++) log.info('long', facts)
    expect(drain().endsWith('\n')).toBe(false)
    log.info('after')
    const [rest, ...whole] = drain().split('\n')
    closeSync(pipe)
    expect(rest).toBe('')
    expect(whole.filter(Boolean).map((line) => JSON.parse(line).message)).toEqual([
      'log lines were lost: the descriptor did not take them',
      'after',
    ])
  })
})
