import { generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { generateKey } from '../../../src/keys/signer.ts'
import { parseAnchors } from '../../../src/telemetry/audit-anchor.ts'
import { type Anchor, CHAIN_START, Chain } from '../../../src/telemetry/audit-chain.ts'
import { splitLines } from '../../../src/telemetry/audit-lines.ts'
import { verifyAudit, verifyAuditLines } from '../../../src/telemetry/audit-verify.ts'
import { AuditFolder, SIGNED } from '../../support/audit.ts'

const verifyText = (text: string | Buffer, anchors: readonly Anchor[] = []) =>
  verifyAuditLines(splitLines('audit.log', [Buffer.from(text)]), anchors)

describe('verifyAudit', () => {
  let folder: AuditFolder
  let text: string
  let lines: readonly string[]
  let anchors: readonly Anchor[]
  /** Three boots, the second of which crashed: 2 + 5 records, 3 without checkpoint, 2 + 4 more. */
  beforeEach(() => {
    folder = new AuditFolder()
    for (const [count, ends] of [
      [5, true],
      [3, false],
      [4, true],
    ] as const) {
      const audit = folder.open()
      for (let record = 0; record < count; record++) audit.append({ ...SIGNED, pid: record })
      audit.commit()
      if (ends) audit.close()
      folder.clock.advance(0)
    }
    text = folder.text()
    lines = text.split('\n').slice(0, -1)
    anchors = folder.anchors()
  })
  afterEach(() => folder.remove())
  const joined = (some: readonly string[]) => `${some.join('\n')}\n`

  it('says ok only with an anchor that is in the log', () => {
    expect(verifyText(text)).toMatchObject({ verdict: 'consistent, not anchored', problems: [], anchored: 0 })
    expect(verifyText(text, anchors)).toEqual({
      verdict: 'ok',
      records: 17,
      boots: 3,
      problems: [],
      notes: [
        {
          file: 'audit.log',
          line: 12,
          what: 'the boot before ended without a checkpoint: no signature covers its last 4 records',
        },
      ],
      anchored: 2,
      unanchored: 0,
    })
    expect(verifyText('')).toMatchObject({ verdict: 'consistent, not anchored', records: 0 })
  })

  it('says how many records come after the last anchor', () => {
    expect(verifyText(text, anchors.slice(0, 1))).toMatchObject({ verdict: 'ok', unanchored: 10 })
  })

  it.each<[string, (all: readonly string[]) => readonly string[], number, RegExp]>([
    [
      'an edited record',
      (all) => all.with(3, (all[3] ?? '').replace('"pid":2', '"pid":3')),
      5,
      /one of the two was edited/,
    ],
    [
      'two records in the other order',
      (all) => [...all.slice(0, 2), all[3] ?? '', all[2] ?? '', ...all.slice(4)],
      3,
      /1 records are missing/,
    ],
    [
      'a record that is there twice',
      (all) => [...all.slice(0, 3), all[2] ?? '', ...all.slice(3)],
      4,
      /there twice/,
    ],
    ['records missing in the middle', (all) => all.toSpliced(2, 2), 3, /2 records are missing/],
    ['a head that was cut', (all) => all.slice(1), 1, /head was cut/],
    ['a boot that was cut out', (all) => all.toSpliced(7, 4), 8, /lines were cut or put in/],
    ['the end of a boot that was cut', (all) => all.toSpliced(10, 1), 11, /lines were cut or put in/],
    ['lines put between two boots', (all) => all.toSpliced(11, 0, '{"seq":12}'), 12, /not an audit record/],
    [
      'a checkpoint of another key',
      (all) => all.with(6, foreignCheckpoint(all)),
      8,
      /lines were cut or put in/,
    ],
  ])('finds %s', (_what, change, line, what) => {
    const report = verifyText(joined(change(lines)))
    expect(report.verdict).toBe('broken')
    expect(report.problems[0]).toEqual({ file: 'audit.log', line, what: expect.stringMatching(what) })
  })

  it('finds a cut tail with an anchor, and cannot without one', () => {
    const cut = joined(lines.slice(0, -1))
    expect(verifyText(cut).verdict).toBe('consistent, not anchored')
    expect(verifyText(cut, anchors)).toMatchObject({
      verdict: 'broken',
      problems: [
        {
          file: 'anchors',
          what: 'the anchored checkpoint of seq 17 is not in the log: cut, or an older copy',
        },
      ],
    })
  })

  it('finds a copy that was put back, even when the agent wrote on over the same numbers', () => {
    writeFileSync(folder.path, joined(lines.slice(0, 7)))
    const audit = folder.open()
    for (let record = 0; record < 20; record++) audit.append(SIGNED)
    audit.close()
    expect(verifyAudit(folder.files())).toMatchObject({ verdict: 'consistent, not anchored', records: 29 })
    expect(verifyAudit(folder.files(), folder.anchors())).toMatchObject({
      verdict: 'broken',
      problems: [{ what: expect.stringContaining('seq 17 is not in the log') }],
    })
  })

  it('finds a log that was written anew with a key of its own', () => {
    const chain = new Chain('boot-1', CHAIN_START)
    const forged = [chain.next('2023-11-14T22:13:20.000Z', '"event":"audit.open","allowed":true')]
    for (let seq = 2; seq < 17; seq++)
      forged.push(chain.next('2023-11-14T22:13:20.000Z', '"event":"admin","allowed":true'))
    forged.push(chain.checkpoint('2023-11-14T22:13:20.000Z', generateKey('ES256')).line)
    expect(verifyText(joined(forged)).verdict).toBe('consistent, not anchored')
    expect(verifyText(joined(forged), anchors).verdict).toBe('broken')
  })

  it('finds a checkpoint signed by a second key within one boot', () => {
    const chain = new Chain('boot-1', CHAIN_START)
    const forged = [
      chain.next('', '"event":"audit.open","allowed":true'),
      chain.checkpoint('', generateKey('ES256')).line,
      chain.checkpoint('', generateKey('ES256')).line,
    ]
    expect(verifyText(joined(forged)).problems).toMatchObject([
      { line: 3, what: expect.stringContaining('another key') },
    ])
  })

  it.each<[string, readonly string[], RegExp]>([
    ['a number that was left out', ['"event":"audit.open"', '"event":"admin"'], /1 records are missing/],
    [
      'a boot that begins without saying so',
      ['"event":"audit.open"', 'boot-2'],
      /a boot begins without audit.open/,
    ],
    ['a boot that begins twice', ['"event":"audit.open"', '"event":"audit.open"'], /begins a second time/],
    ['a log that does not begin with its opening', ['"event":"admin"'], /does not begin with audit.open/],
  ])('finds %s though every hash is right', (_what, all, what) => {
    let end = CHAIN_START
    const forged = all.map((members) => {
      const isOther = members === 'boot-2'
      const seq = what.source.includes('missing') && end.seq === 1 ? 2 : end.seq
      const chain = new Chain(isOther ? 'boot-2' : 'boot-1', { ...end, seq })
      const line = chain.next('', isOther ? '"event":"admin"' : members)
      end = chain.end
      return line
    })
    const [first, ...others] = verifyText(joined(forged)).problems
    expect([first?.what, others]).toEqual([expect.stringMatching(what), []])
  })

  it('finds another spelling of a signature and a key of another curve', () => {
    const last = lines.at(-1) ?? ''
    // The last of 86 characters carries two bits of signature and four that decoders ignore.
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const next = alphabet[alphabet.indexOf(last.at(-3) ?? '') + 1]
    expect(
      verifyText(joined([...lines.slice(0, -1), `${last.slice(0, -3)}${next}"}`])).problems,
    ).toMatchObject([{ line: 17, what: 'the checkpoint has a wrong signature' }])
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
    const signer = {
      publicJwk: publicKey.export({ format: 'jwk' }),
      sign: (input: Uint8Array) => sign('sha256', input, { key: privateKey, dsaEncoding: 'ieee-p1363' }),
    }
    const chain = new Chain('boot-1', CHAIN_START)
    const forged = [chain.next('', '"event":"audit.open"'), chain.checkpoint('', signer).line]
    expect(verifyText(joined(forged)).problems).toMatchObject([
      { what: 'the checkpoint has a wrong signature' },
    ])
  })

  it('finds a torn line that was edited or taken away after the next boot owned up to it', () => {
    writeFileSync(folder.path, '{"seq":18,"ts', { flag: 'a' })
    folder.open().close()
    const whole = folder.text()
    const problems = (text: string) => verifyText(text).problems.map(({ line, what }) => [line, what])
    expect(problems(whole)).toEqual([])
    expect(problems(whole.replace('{"seq":18,"ts\n', '{"seq":19,"ts\n'))).toEqual([
      [18, 'not an audit record'],
    ])
    expect(problems(whole.replace('{"seq":18,"ts\n', ''))).toEqual([
      [18, 'the torn line that this record speaks of is gone'],
    ])
  })

  it('refuses an anchor whose own signature is wrong', () => {
    const [first] = anchors
    const forged = { ...(first as Anchor), hash: 'x'.repeat(43) }
    expect(verifyText(text, [forged]).problems).toMatchObject([
      { what: 'the anchor of seq 7 has a wrong signature' },
      {},
    ])
  })

  it('bounds what it holds of an endless line and what it reports', () => {
    const endless = Buffer.alloc(3 * 1024 * 1024, 'x')
    const found = [...splitLines('f', [endless, endless, Buffer.from('\nrest')])]
    expect(found.map(({ line, bytes, flaw }) => [line, bytes.length, flaw])).toEqual([
      [1, 256 * 1024, 'too long'],
      [2, 4, 'unfinished'],
    ])
    expect(verifyText('x\n'.repeat(5_000)).problems).toHaveLength(100)
  })

  it('joins lines over chunks of any size', () => {
    const bytes = Buffer.from(text)
    const chunks = Array.from({ length: Math.ceil(bytes.length / 7) }, (_, at) =>
      bytes.subarray(at * 7, at * 7 + 7),
    )
    expect(verifyAuditLines(splitLines('audit.log', chunks), anchors).verdict).toBe('ok')
  })

  describe('against any change', () => {
    const index = fc.nat()
    it('finds each edited, added or removed byte', () => {
      const bytes = Buffer.from(text)
      fc.assert(
        fc.property(
          index,
          fc.integer({ min: 1, max: 255 }),
          fc.constantFrom('edit', 'add', 'remove'),
          (at, by, kind) => {
            const place = at % bytes.length
            const changed = Buffer.from(bytes)
            const byte = ((bytes[place] ?? 0) + by) % 256
            changed[place] = byte
            const other = {
              edit: changed,
              add: Buffer.concat([bytes.subarray(0, place), Buffer.of(byte), bytes.subarray(place)]),
              remove: Buffer.concat([bytes.subarray(0, place), bytes.subarray(place + 1)]),
            }[kind]
            expect(verifyText(other, anchors).verdict).toBe('broken')
          },
        ),
        { numRuns: 1_000 },
      )
    })

    it('finds each edited byte of all but the last boot without an anchor', () => {
      const bytes = Buffer.from(joined(lines.slice(0, 12)))
      fc.assert(
        fc.property(index, fc.integer({ min: 1, max: 255 }), (at, by) => {
          const changed = Buffer.from(bytes)
          const place = at % Buffer.byteLength(joined(lines.slice(0, 11)))
          changed[place] = ((bytes[place] ?? 0) + by) % 256
          expect(verifyText(changed).verdict).toBe('broken')
        }),
        { numRuns: 500 },
      )
    })

    it('finds each line that was moved, swapped, copied or dropped', () => {
      fc.assert(
        fc.property(index, index, fc.constantFrom('swap', 'move', 'copy', 'drop'), (from, to, kind) => {
          const a = from % lines.length
          const b = to % lines.length
          const one = lines[a] ?? ''
          fc.pre(kind === 'drop' || kind === 'copy' || a !== b)
          const changed = {
            swap: lines.with(a, lines[b] ?? '').with(b, one),
            move: lines.toSpliced(a, 1).toSpliced(b, 0, one),
            copy: lines.toSpliced(b, 0, one),
            drop: lines.toSpliced(a, 1),
          }[kind]
          expect(verifyText(joined(changed), anchors).verdict).toBe('broken')
        }),
      )
    })
  })

  function foreignCheckpoint(all: readonly string[]): string {
    const chain = new Chain('boot-1', { seq: 6, hash: String(JSON.parse(all[6] ?? '').prev) })
    return chain.checkpoint('2023-11-14T22:13:20.000Z', generateKey('ES256')).line
  }
})

describe('parseAnchors', () => {
  let folder: AuditFolder
  let line: string
  beforeEach(() => {
    folder = new AuditFolder()
    folder.open().close()
    line = JSON.stringify(folder.log.lines[0])
  })
  afterEach(() => folder.remove())

  it.each<[string, (line: string) => string]>([
    ['log lines', (line) => `{"level":"info"}\n${line}\nnoise {\n`],
    ["log lines behind a collector's prefix", (line) => `Nov 14 22:13:20 node holdfast[7]: ${line}`],
    ['JSON with short names and the key as an object', (line) => shortened(line)],
  ])('reads %s', (_what, make) => {
    expect(verifyAudit(folder.files(), parseAnchors(make(line)))).toMatchObject({
      verdict: 'ok',
      anchored: 1,
    })
  })

  it('takes nothing from a line that lacks a member or is too long', () => {
    expect(
      parseAnchors(
        `${line.replace('audit_hash', 'hsh')}\n${line.replace('"message":"', `"message":"${'x'.repeat(70_000)}`)}`,
      ),
    ).toEqual([])
  })

  it('finds the anchors of an audit log copied whole', () => {
    const log = readFileSync(folder.path, 'utf8')
    expect(parseAnchors(log)).toEqual([])
  })
})

function shortened(line: string): string {
  const { audit_seq: seq, audit_hash: hash, signature, public_key: key } = JSON.parse(line)
  return JSON.stringify({ seq, hash, signature, public_key: JSON.parse(key) })
}
