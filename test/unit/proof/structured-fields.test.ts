import { describe, expect, it } from 'vitest'
import { parseDictionary, parseItem, parseList } from '../../../src/proof/structured-fields.ts'
import { dictionaryText, itemText, listText } from '../../../src/proof/structured-text.ts'

describe('structured fields (RFC 9651)', () => {
  it.each([
    ['a=1,    b=2;x=1;y=2,   c=(a   b    c), d', 'a=1, b=2;x=1;y=2, c=(a b c), d'],
    ['a;x;y=?0 ,\tb=?0,c=?1;z', 'a;x;y=?0, b=?0, c;z'],
    ['a=-0, b=007, c=1.50, d=2.0, e=-1.125', 'a=0, b=7, c=1.5, d=2.0, e=-1.125'],
    ['a="q\\"b\\\\", b=*t/k:x, c=:aGVsbG8=:, d=()', 'a="q\\"b\\\\", b=*t/k:x, c=:aGVsbG8=:, d=()'],
    ['a=("x";y "z");t=1', 'a=("x";y "z");t=1'],
    ['', ''],
    ['  a  ', 'a'],
  ])('reads the dictionary %s', (text, canonical) => {
    const members = parseDictionary(text)
    expect(members && dictionaryText(members)).toBe(canonical)
  })

  it('reads lists and items', () => {
    expect(listText(parseList('a, "b";q=0.5 ,(c  d)') ?? [])).toBe('a, "b";q=0.5, (c d)')
    const item = parseItem(' :AAE=:;a ')
    expect(item && itemText(item)).toBe(':AAE=:;a')
  })

  it.each([
    ['a comma at the end', 'a=1,'],
    ['a comma alone', ','],
    ['a key twice', 'a=1, a=2'],
    ['a parameter twice', 'a=1;b;b'],
    ['a key in upper case', 'A=1'],
    ['a key of no letters', '=1'],
    ['a key of 65 letters', `${'a'.repeat(65)}=1`],
    ['no value', 'a='],
    ['blanks around the sign', 'a =1'],
    ['an open string', 'a="x'],
    ['an unknown escape', 'a="\\n"'],
    ['a character beyond ASCII', 'a="\u00e9"'],
    ['a control character', 'a="\t"'],
    ['an integer of 16 digits', 'a=1234567890123456'],
    ['a fraction of 4 digits', 'a=1.2345'],
    ['a fraction of none', 'a=1.'],
    ['two dots', 'a=1.2.3'],
    ['a sign alone', 'a=-'],
    ['an open list', 'a=(b c'],
    ['a list within a list', 'a=(b (c))'],
    ['items that touch', 'a=("b""c")'],
    ['a tab within a list', 'a=(b\tc)'],
    ['bytes without end', 'a=:aGVsbG8='],
    ['base64url', 'a=:-_==:'],
    ['a boolean of 2', 'a=?2'],
    ['a date', 'a=@1659578233'],
    ['what follows the end', 'a=1 b=2'],
    ['65 members', Array.from({ length: 65 }, (_, at) => `a${at}`).join()],
    ['65 items', `a=(${'b '.repeat(65)})`],
    ['65 parameters', `a${Array.from({ length: 65 }, (_, at) => `;a${at}`).join('')}`],
    ['over 16 KiB', `a="${'b'.repeat(16 * 1024)}"`],
  ])('refuses %s', (_what, text) => {
    expect(parseDictionary(text)).toBeUndefined()
  })

  it('threats row 10: reads a hostile text in linear time', () => {
    for (const part of ['(', ' ', '"\\', ';a', 'a=(', '\\\\', ':', ','])
      expect(parseDictionary(`a=${part.repeat(8000)}`.slice(0, 16_000))).toBeUndefined()
  })
})
