import { describe, expect, it } from 'vitest'
import { parseDer } from '../../../src/spiffe/der.ts'
import { octets, sequence, tlv } from '../../support/der.ts'
import { faultOf } from '../../support/faults.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
const nested = (depth: number): Buffer => (depth === 1 ? hex('0500') : sequence(nested(depth - 1)))

describe('parseDer', () => {
  it.each([
    ['a NULL', '0500'],
    ['TRUE', '0101ff'],
    ['FALSE', '010100'],
    ['a negative INTEGER', '0201ff'],
    ['an INTEGER with a needed sign byte', '02020080'],
    ['an empty BIT STRING', '030100'],
    ['a BIT STRING with zero unused bits', '03020780'],
    ['an OID of two byte arcs', '06032a8648'],
    ['an empty SEQUENCE', '3000'],
  ])('reads %s and keeps its bytes', (_what, text) => {
    expect(parseDer(hex(text)).bytes.toString('hex')).toBe(text)
  })

  it('gives the values inside a value, each with its own bytes', () => {
    const inner = [hex('0500'), octets(Buffer.alloc(200)), sequence(hex('0101ff'))]
    expect(parseDer(sequence(...inner)).children.map(({ bytes }) => bytes)).toEqual(inner)
  })

  it.each([
    ['nothing', '', 'it is cut off'],
    ['an identifier alone', '30', 'it is cut off'],
    ['a length cut off', '3082', 'it is cut off'],
    ['content cut off', '040201', 'a length reaches past the end'],
    ['content cut off inside', '3003040201', 'a length reaches past the end'],
    ['bytes after the end', '050000', 'bytes follow its end'],
    ['an indefinite length', '30800000', 'a length is indefinite'],
    ['a long length below 128', '04810101', 'a length is not minimal'],
    ['a long length with a zero byte', `04820080${'00'.repeat(128)}`, 'a length is not minimal'],
    ['a length of four bytes', '048400000001', 'a length is out of bounds'],
    ['the reserved length', '04ff', 'a length is out of bounds'],
    ['a high tag number', '1f8101', 'a tag number is over 30'],
    ['a high tag number of a context', 'bf8101', 'a tag number is over 30'],
    ['an end-of-contents', '0000', 'a tag is not one of DER'],
    ['a constructed string', '240404020102', 'a tag is not one of DER'],
    ['a constructed BIT STRING', '2300', 'a tag is not one of DER'],
    ['a primitive SEQUENCE', '1000', 'a tag is not one of DER'],
    ['TRUE as 1', '010101', 'a value of type 1 is not in its one encoding'],
    ['a BOOLEAN of two bytes', '0102ffff', 'a value of type 1 is not in its one encoding'],
    ['an empty INTEGER', '0200', 'a value of type 2 is not in its one encoding'],
    ['a padded INTEGER', '0202007f', 'a value of type 2 is not in its one encoding'],
    ['a padded negative INTEGER', '0202ff80', 'a value of type 2 is not in its one encoding'],
    ['a BIT STRING without its first byte', '0300', 'a value of type 3 is not in its one encoding'],
    ['a BIT STRING with 8 unused bits', '03020800', 'a value of type 3 is not in its one encoding'],
    ['unused bits of nothing', '030101', 'a value of type 3 is not in its one encoding'],
    ['unused bits that are set', '03020781', 'a value of type 3 is not in its one encoding'],
    ['a NULL with content', '050100', 'a value of type 5 is not in its one encoding'],
    ['an empty OID', '0600', 'a value of type 6 is not in its one encoding'],
    ['an OID with a padded arc', '06032a8001', 'a value of type 6 is not in its one encoding'],
    ['an OID with an open arc', '06022a86', 'a value of type 6 is not in its one encoding'],
  ])('refuses %s', (_what, text, cause) => {
    expect(faultOf(() => parseDer(hex(text)))).toBe(
      `certificate_malformed: the certificate cannot be read: ${cause}`,
    )
  })

  it('reads 12 levels and refuses 13, and 20,000 without end', () => {
    expect(parseDer(nested(12)).tag).toBe(0x30)
    expect(faultOf(() => parseDer(nested(13)))).toContain('nested over 12 deep')
    const bomb = Buffer.alloc(60_000)
    for (let at = 0; at < bomb.length; at += 4)
      bomb.writeUInt32BE(0x3082_0000 + ((bomb.length - at - 4) & 0xffff), at)
    expect(faultOf(() => parseDer(bomb))).toContain('certificate_malformed')
  })

  it('reads 64 KiB and refuses a byte more', () => {
    expect(parseDer(octets(Buffer.alloc(65_532))).content).toHaveLength(65_532)
    expect(faultOf(() => parseDer(tlv(0x04, Buffer.alloc(65_533))))).toContain('it is over 65536 bytes')
  })
})
