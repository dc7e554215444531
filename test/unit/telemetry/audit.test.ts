import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { Secret } from '../../../src/base/secret.ts'
import type { AuditFacts } from '../../../src/telemetry/audit.ts'
import { verifyAudit } from '../../../src/telemetry/audit-verify.ts'
import { AuditFolder, recordsIn, SIGNED } from '../../support/audit.ts'

const sha256 = (text: string) => createHash('sha256').update(text).digest('base64url')
const events = (records: readonly Record<string, unknown>[]) => records.map((record) => record['event'])

describe('the audit log', () => {
  let folder: AuditFolder
  beforeEach(() => {
    folder = new AuditFolder()
  })
  afterEach(() => folder.remove())

  it('numbers its records, stamps them and chains each to the bytes of the line before', () => {
    const audit = folder.open()
    folder.clock.advance(1)
    audit.append(SIGNED)
    audit.commit()
    const [opening, line] = folder.text().split('\n')
    expect(JSON.parse(opening ?? '')).toEqual({
      seq: 1,
      ts: '2023-11-14T22:13:20.000Z',
      boot: 'boot-1',
      prev: '',
      event: 'audit.open',
      allowed: true,
    })
    expect(JSON.parse(line ?? '')).toEqual({
      seq: 2,
      ts: '2023-11-14T22:13:20.001Z',
      boot: 'boot-1',
      prev: sha256(opening ?? ''),
      ...SIGNED,
    })
  })

  it('is readable and writable by its owner alone', () => {
    folder.open()
    expect(statSync(folder.path).mode & 0o777).toBe(0o600)
  })

  it('has a record on disk when commit returns, and not before', () => {
    const audit = folder.open()
    audit.append(SIGNED)
    expect(folder.records()).toHaveLength(1)
    audit.commit()
    expect(folder.records()).toHaveLength(2)
  })

  it('commits by itself 50 ms later when nobody does', () => {
    const audit = folder.open()
    audit.append(SIGNED)
    folder.clock.advance(49)
    expect(folder.records()).toHaveLength(1)
    folder.clock.advance(1)
    expect(folder.records()).toHaveLength(2)
  })

  it('shows each written record to those who watch, without the chain, until they stop', () => {
    const audit = folder.open()
    const seen: unknown[] = []
    const stop = audit.watch((record) => seen.push(record))
    audit.append(SIGNED)
    expect(seen).toEqual([])
    audit.commit()
    stop()
    audit.append(SIGNED)
    audit.commit()
    expect(seen).toEqual([{ ...SIGNED, seq: 2, ts: '2023-11-14T22:13:20.000Z' }])
  })

  it('lets go of a watcher that throws', () => {
    const audit = folder.open()
    let calls = 0
    audit.watch(() => {
      calls++
      throw new Error('watcher')
    })
    audit.append(SIGNED)
    expect(() => audit.commit()).not.toThrow()
    audit.append(SIGNED)
    audit.commit()
    expect(calls).toBe(1)
  })

  describe('checkpoints', () => {
    it('come after 1,000 records and say in the log what they signed', () => {
      const audit = folder.open()
      for (let record = 1; record < 1_000; record++) audit.append(SIGNED)
      audit.commit()
      const records = folder.records()
      expect(records).toHaveLength(1_001)
      expect(records[1_000]).toMatchObject({ event: 'audit.checkpoint', seq: 1_001 })
      expect(folder.log.lines).toMatchObject([
        {
          level: 'info',
          message: 'audit checkpoint',
          audit_seq: 1_001,
          signature: records[1_000]?.['signature'],
        },
      ])
    })

    it('come 10 s after the first record that none covers, and never for nothing', () => {
      folder.open()
      folder.clock.advance(10_000)
      folder.clock.advance(3_600_000)
      expect(events(folder.records())).toEqual(['audit.open', 'audit.checkpoint'])
    })

    it('end the log of an agent that stops', () => {
      const audit = folder.open()
      audit.append(SIGNED)
      audit.close()
      audit.close()
      expect(events(folder.records())).toEqual(['audit.open', 'sign.dpop', 'audit.checkpoint'])
      expect(() => audit.check()).toThrowError(/cannot be written \(closed\)/)
    })

    it('are missing, loudly, when the key does not sign, and nothing else is', () => {
      const sign = () => {
        throw new Fault('key_lost')
      }
      const audit = folder.open({ signer: { publicJwk: {}, sign } })
      folder.clock.advance(10_000)
      audit.append(SIGNED)
      expect(() => audit.commit()).not.toThrow()
      expect(folder.health.degraded).toMatchObject([{ code: 'audit_checkpoint' }])
      expect(verifyAudit(folder.files())).toMatchObject({ verdict: 'consistent, not anchored', records: 2 })
    })
  })

  describe('across restarts', () => {
    it('ties the first record of a boot to the last line it found', () => {
      folder.open().close()
      folder.open().close()
      const lines = folder.text().split('\n')
      expect(JSON.parse(lines[2] ?? '')).toMatchObject({
        seq: 3,
        boot: 'boot-2',
        prev: sha256(lines[1] ?? ''),
      })
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({
        verdict: 'ok',
        boots: 2,
        notes: [],
      })
    })

    it('owns up to a line that a crash tore', () => {
      folder.open().close()
      writeFileSync(folder.path, '{"seq":3,"ts":"20', { flag: 'a' })
      folder.open().close()
      expect(recordsIn(folder.text().split('\n').slice(3).join('\n'))[0]).toMatchObject({
        event: 'audit.open',
        torn: 17,
        torn_hash: sha256('{"seq":3,"ts":"20'),
      })
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({
        verdict: 'ok',
        notes: [{ line: 3, what: expect.stringContaining('stopped while it wrote this line') }],
      })
    })

    it('takes a last line that lacks only its line feed for what it is', () => {
      folder.open().close()
      truncateSync(folder.path, statSync(folder.path).size - 1)
      folder.open().close()
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({
        verdict: 'ok',
        notes: [],
        records: 4,
      })
    })

    it('goes on from the rotated file when the current one is gone or holds half a line', () => {
      folder.open().close()
      renameSync(folder.path, `${folder.path}.1`)
      folder.open().close()
      renameSync(folder.path, `${folder.path}.0`)
      writeFileSync(folder.path, '{"seq"')
      rmSync(`${folder.path}.0`)
      folder.open().close()
      expect(folder.records).toThrow()
      expect(verifyAudit(folder.files())).toMatchObject({ verdict: 'consistent, not anchored', records: 4 })
    })

    it('keeps both chains whole while one agent takes over from another', () => {
      const old = folder.open()
      const young = folder.open()
      for (const audit of [old, young, old, old, young]) {
        audit.append(SIGNED)
        audit.commit()
      }
      old.close()
      young.close()
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({
        verdict: 'ok',
        records: 9,
        notes: [{ line: 3, what: 'agents of two boots write at the same time' }],
      })
    })
  })

  describe('rotation', () => {
    const small = (keep: number) =>
      ({
        sink: { kind: 'file', path: folder.path, rotateBytes: 2_000, keep },
      }) as const
    const write = (audit: ReturnType<AuditFolder['open']>, count: number) => {
      for (let record = 0; record < count; record++) {
        audit.append(SIGNED)
        audit.commit()
      }
    }

    it('starts a new file at the size and goes on with the chain', () => {
      const audit = folder.open(small(9))
      write(audit, 30)
      audit.close()
      expect(folder.files().length).toBeGreaterThan(2)
      expect(statSync(`${folder.path}.1`).size).toBeLessThan(2_300)
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({ verdict: 'ok', records: 32 })
    })

    it('drops the oldest file over the number kept, after the chain has said so', () => {
      const audit = folder.open(small(2))
      write(audit, 1)
      folder.clock.advance(10_000)
      write(audit, 100)
      audit.close()
      expect(folder.files().map((file) => file.slice(folder.path.length))).toEqual(['.2', '.1', ''])
      const report = verifyAudit(folder.files(), folder.anchors())
      expect(report).toMatchObject({ verdict: 'ok', problems: [], anchored: 1 })
      expect(folder.anchors()).toHaveLength(2)
      expect(report.records).toBeLessThan(50)
    })

    it('leaves the moving of files to one of two agents', () => {
      const audits = [folder.open(small(9)), folder.open(small(9))]
      for (let round = 0; round < 20; round++) for (const audit of audits) write(audit, 1)
      for (const audit of audits) audit.close()
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({ verdict: 'ok', records: 44 })
      const bytes = folder.files().reduce((sum, file) => sum + statSync(file).size, 0)
      expect(folder.files()).toHaveLength(Math.floor(bytes / 4_000) + 1)
    })

    it('goes on in the old file, degraded, where it may not rename, and tries again at the next checkpoint', () => {
      mkdirSync(join(`${folder.path}.1`, 'in the way'), { recursive: true })
      const audit = folder.open(small(9))
      write(audit, 30)
      expect(folder.health.degraded).toMatchObject([{ code: 'audit_rotation' }])
      rmSync(`${folder.path}.1`, { recursive: true })
      folder.clock.advance(10_000)
      write(audit, 1)
      audit.close()
      expect(folder.health.degraded).toEqual([])
      expect(verifyAudit(folder.files(), folder.anchors()).verdict).toBe('ok')
    })

    it('follows within a checkpoint a file that somebody moved away', () => {
      const audit = folder.open()
      renameSync(folder.path, `${folder.path}.1`)
      folder.clock.advance(10_000)
      audit.append(SIGNED)
      audit.commit()
      expect(recordsIn(readFileSync(folder.path, 'utf8'))).not.toEqual([])
      audit.close()
      expect(verifyAudit(folder.files(), folder.anchors()).verdict).toBe('ok')
    })
  })

  describe('when the sink fails', () => {
    let fd: number
    const descriptor = {
      sink: {
        get kind() {
          return 'descriptor' as const
        },
        get fd() {
          return fd
        },
      },
    }

    it('refuses on a full disk, at once and at each later check', () => {
      fd = openSync('/dev/full', 'w')
      expect(() => folder.open(descriptor)).toThrowError(/cannot be written \(ENOSPC\)/)
      expect(folder.health.degraded).toMatchObject([{ code: 'audit_unavailable' }])
      closeSync(fd)
    })

    it('goes on where policy says continue, counted and degraded, and logs it once', async () => {
      fd = openSync('/dev/full', 'w')
      const audit = folder.open({ ...descriptor, onFailure: 'continue' })
      audit.append(SIGNED)
      expect(() => audit.commit()).not.toThrow()
      expect(() => audit.check()).not.toThrow()
      expect(folder.health.degraded).toMatchObject([{ code: 'audit_gap' }])
      expect(folder.log.lines).toHaveLength(1)
      expect(await folder.metrics.render()).toMatch(/^holdfast_audit_failures_total 2$/m)
      closeSync(fd)
    })

    it('refuses on a closed descriptor, and writes what waited, in order, once there is one', () => {
      fd = openSync(folder.path, 'a')
      const audit = folder.open(descriptor)
      closeSync(fd)
      audit.append(SIGNED)
      expect(() => audit.commit()).toThrowError(expect.objectContaining({ reason: 'audit_unavailable' }))
      audit.append(SIGNED)
      expect(openSync(folder.path, 'a')).toBe(fd)
      folder.clock.advance(1_000)
      expect(() => audit.check()).not.toThrow()
      audit.close()
      expect(events(folder.records())).toEqual([
        'audit.open',
        'sign.dpop',
        'sign.dpop',
        'audit.gap',
        'audit.checkpoint',
      ])
      expect(folder.health.degraded).toEqual([])
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({ verdict: 'ok', notes: [] })
      closeSync(fd)
    })

    it('counts in the chain what it had no room for', () => {
      fd = openSync(folder.path, 'a')
      const audit = folder.open({ ...descriptor, onFailure: 'continue' })
      closeSync(fd)
      for (let record = 0; record < 11_000; record++) audit.append(SIGNED)
      fd = openSync(folder.path, 'a')
      audit.commit()
      audit.close()
      const gap = folder.records().find((record) => record['event'] === 'audit.gap')
      const written = folder.records().filter((record) => record['event'] === 'sign.dpop').length
      expect(written + Number(gap?.['lost'])).toBe(11_000)
      expect(gap?.['lost']).toBeGreaterThan(0)
      expect(folder.health.degraded).toMatchObject([
        { code: 'audit_gap', message: expect.stringContaining('were lost') },
      ])
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({
        verdict: 'ok',
        notes: [
          {
            what: expect.stringContaining(`${gap?.['lost']} records were lost`),
          },
        ],
      })
      closeSync(fd)
    })

    it('ends a line that a full pipe took half of, before any other', () => {
      const fifo = join(folder.directory, 'fifo')
      execFileSync('mkfifo', [fifo])
      fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK)
      const audit = folder.open({ ...descriptor, onFailure: 'continue' })
      for (let record = 0; record < 1_000; record++) audit.append(SIGNED)
      audit.commit()
      expect(folder.health.degraded).toMatchObject([
        { code: 'audit_gap', message: expect.stringContaining('EAGAIN') },
      ])
      let text = ''
      const drain = () => {
        const bytes = Buffer.alloc(1024 * 1024)
        text += bytes.subarray(0, readSync(fd, bytes)).toString()
      }
      drain()
      expect(text.endsWith('\n')).toBe(false)
      for (let round = 0; round < 10 && folder.health.degraded.length > 0; round++) {
        folder.clock.advance(1_000)
        drain()
      }
      writeFileSync(folder.path, text)
      expect(verifyAudit([folder.path], folder.anchors())).toMatchObject({ verdict: 'ok', records: 1_003 })
      closeSync(fd)
    })

    it('anchors a checkpoint once it is written, and not while it waits', () => {
      fd = openSync(folder.path, 'a')
      const audit = folder.open(descriptor)
      for (let record = 0; record < 500; record++) audit.append(SIGNED)
      audit.commit()
      closeSync(fd)
      for (let record = 0; record < 499; record++) audit.append(SIGNED)
      expect(() => audit.commit()).toThrowError(/EBADF/)
      expect(folder.anchors()).toEqual([])
      fd = openSync(folder.path, 'a')
      audit.commit()
      expect(folder.anchors()).toMatchObject([{ seq: 1_001 }])
      closeSync(fd)
    })

    it('waits for a slow reader of a pipe for a moment, and for one that has stopped not again', () => {
      const fifo = join(folder.directory, 'fifo')
      execFileSync('mkfifo', [fifo])
      fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK)
      const audit = folder.open({ ...descriptor, onFailure: 'continue' })
      writeSync(fd, Buffer.alloc(1024 * 1024))
      const wait = vi.spyOn(Atomics, 'wait')
      for (let call = 0; call < 3; call++) {
        audit.append(SIGNED)
        audit.commit()
      }
      expect(wait).toHaveBeenCalledTimes(20)
      wait.mockRestore()
      closeSync(fd)
    })

    it('starts without its directory where policy says continue, and joins the chain when it is there', () => {
      folder.open().close()
      renameSync(folder.directory, `${folder.directory}-away`)
      const audit = folder.open({ onFailure: 'continue' })
      audit.append(SIGNED)
      renameSync(`${folder.directory}-away`, folder.directory)
      folder.clock.advance(1_000)
      audit.close()
      expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({ verdict: 'ok', boots: 2 })
    })
  })

  it.each<[string, (path: string) => void, string]>([
    ['a link', (path) => symlinkSync('/dev/null', path), 'audit_unavailable'],
    ['a named pipe', (path) => execFileSync('mkfifo', [path]), 'audit_unavailable'],
    ['a device', (path) => execFileSync('mknod', [path, 'c', '1', '3']), 'config_invalid'],
    [
      'a file that its group may write',
      (path) => [writeFileSync(path, ''), chmodSync(path, 0o620)],
      'policy_writable',
    ],
  ])('refuses to write to %s', (_what, make, reason) => {
    make(folder.path)
    expect(() => folder.open()).toThrowError(expect.objectContaining({ reason }))
  })

  it('chains nothing and keeps nothing where it is switched off, and still shows decisions', () => {
    const audit = folder.open({ sink: { kind: 'none' } })
    const seen: unknown[] = []
    audit.watch((record) => seen.push(record.event))
    audit.append(SIGNED)
    audit.commit()
    folder.clock.advance(10_000)
    expect([seen, folder.log.lines, folder.files()]).toEqual([['sign.dpop'], [], [folder.path]])
  })

  describe('holds no secret and cannot be forged', () => {
    it.each([
      ['a field that is not listed', { access_token: 'canary', proof: 'canary', nonce: 'canary' }],
      ['a secret in a listed field', { detail: new Secret('canary') }],
      ['an object in a listed field', { entry: { canary: 1 } }],
      ['an error', Object.assign(new Fault('bug', undefined, { cause: new Error('canary') }), SIGNED)],
      ['a toJSON function', { path: { toJSON: () => 'canary' } }],
    ])('drops %s', (_what, facts) => {
      const audit = folder.open()
      audit.append({ ...SIGNED, ...facts } as AuditFacts)
      audit.append(facts as AuditFacts)
      audit.commit()
      expect(folder.text()).not.toContain('canary')
    })

    it.each(['\n{"seq":9}', 'a\r', '"},{"', '\\', '\u2028', '\u001b[2J', '\u0000', '\u202e', '\ud800'])(
      'keeps %j inside its field',
      (value) => {
        const audit = folder.open()
        audit.append({ ...SIGNED, path: value, audience: [value] })
        audit.close()
        expect(folder.text().match(/\n/g)).toHaveLength(3)
        // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
        expect(folder.text()).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u2028\u202e]/)
        expect(folder.records()[1]).toMatchObject({ ...SIGNED, path: expect.any(String) })
        expect(verifyAudit(folder.files(), folder.anchors()).verdict).toBe('ok')
      },
    )

    it('bounds the text and the lists of a record', () => {
      const audit = folder.open()
      audit.append({ ...SIGNED, path: 'x'.repeat(100_000), audience: Array(1_000).fill('y'.repeat(5_000)) })
      audit.commit()
      const record = folder.records()[1]
      expect(record?.['path']).toHaveLength(1_025)
      expect(record?.['audience']).toHaveLength(17)
    })
  })
})
