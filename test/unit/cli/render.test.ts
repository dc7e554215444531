import { describe, expect, it } from 'vitest'
import { counted, instant, parseSpan, relative, span, table, tinted } from '../../../src/cli/render.ts'
import { faultOf } from '../../support/faults.ts'

describe('span', () => {
  it.each([
    [0, '0s'],
    [45, '45s'],
    [59.4, '59s'],
    [59.6, '1m'],
    [60, '1m'],
    [90, '1m 30s'],
    [599, '9m 59s'],
    [2520, '42m'],
    [3599, '59m'],
    [3600, '1h'],
    [11_400, '3h 10m'],
    [86_400, '1d'],
    [187_200, '2d 4h'],
  ])('says %s seconds as %s', (seconds, text) => expect(span(seconds)).toBe(text))
})

describe('relative', () => {
  it.each([
    [1000, 'now'],
    [3520, 'in 42m'],
    [700, '5m ago'],
  ])('says %d as %s at 1000', (at, text) => expect(relative(at, 1000)).toBe(text))
})

describe('instant', () => {
  it('is UTC to the second', () => expect(instant(1_772_366_645)).toBe('2026-03-01 12:04:05Z'))
})

describe('counted', () => {
  it.each([
    [0, '0 keys'],
    [1, '1 key'],
    [2, '2 keys'],
  ])('counts %d', (count, text) => expect(counted(count, 'key')).toBe(text))

  it('takes a plural of its own', () => expect(counted(2, 'entry', 'entries')).toBe('2 entries'))
})

describe('parseSpan', () => {
  it.each([
    ['90s', 90],
    ['5m', 300],
    ['1h', 3600],
    ['7d', 604_800],
  ])('reads %s', (text, seconds) => expect(parseSpan('--for', text)).toBe(seconds))

  it.each(['', '5', '0s', '-1s', '1.5h', '1w', '5m ', '9999999s'])(
    'refuses %j and names the option',
    (text) => {
      expect(faultOf(() => parseSpan('--for', text))).toBe(
        `usage: --for is ${JSON.stringify(text)}, wanted a duration such as 90s, 5m, 1h or 7d`,
      )
    },
  )
})

describe('table', () => {
  it('aligns columns and does not pad the last one', () => {
    const text = table(
      ['name', 'grade', 'keys'],
      [
        ['a-long-name', { text: 'weak', tint: 'yellow' }, '2'],
        ['b', { text: 'strong', tint: 'green' }, '10'],
      ],
      false,
    )
    expect(text.split('\n')).toEqual([
      'NAME          GRADE    KEYS',
      'a-long-name   weak     2',
      'b             strong   10',
      '',
    ])
  })

  it('keeps its columns when it is coloured', () => {
    const cells = [[{ text: 'weak', tint: 'yellow' }, 'x'] as const]
    const bare = table(['grade', 'y'], cells, false)
    const colored = table(['grade', 'y'], cells, true)
    expect(colored).not.toBe(bare)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters.
    expect(colored.replaceAll(/\u001b\[\d+m/g, '')).toBe(bare)
  })

  it('lets no text from outside move the cursor or begin a line', () => {
    const text = table(['name'], [['spiffe://a.test/\u001b[2J\nforged']], false)
    expect(text).toBe('NAME\nspiffe://a.test/\ufffd[2J\ufffdforged\n')
  })
})

describe('tinted', () => {
  it('writes colours only where they are wanted', () => {
    expect(tinted('x', 'red', false)).toBe('x')
    expect(tinted('x', 'red', true)).toBe('\u001b[31mx\u001b[0m')
  })
})
