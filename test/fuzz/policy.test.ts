/** Files that people and attackers write: whatever they hold is read or refused with a line, never a crash. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import { devPolicy } from '../../src/policy/dev.ts'
import { parsePolicy } from '../../src/policy/load.ts'
import { compileWhen } from '../../src/policy/when.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'
import { FUZZ } from '../support/mutate.ts'
import { context, LAYERS } from '../support/policy.ts'

const trustDomain = parseTrustDomain('example.org')
const config =
  'trust_domain: example.org\nlog: { level: debug }\nsvid:\n  x509_ttl: 1h\nops: { listen: 127.0.0.1:9465 }\n'
const seeds = [
  ...Object.values(LAYERS),
  ...devPolicy({ trustDomain, uids: [1] }).map(({ text }) => text),
  config,
]

const bits = [
  '',
  ' ',
  '\n',
  '\t',
  '-',
  ': ',
  '#',
  '"',
  "'",
  '[',
  ']',
  '{',
  '}',
  ',',
  '&a',
  '*a',
  '!!',
  '|',
  '>',
  '---\n',
  '?',
  '%',
  '\0',
  'é',
  '1',
  '~',
  '__proto__: ',
]
const spoiled = fc
  .tuple(
    fc.constantFrom(...seeds),
    fc.array(fc.tuple(fc.nat(2_000), fc.constantFrom(...bits), fc.nat(6)), { maxLength: 6 }),
  )
  .map(([text, slips]) =>
    slips.reduce((now, [at, put, cut]) => {
      const index = at % (now.length + 1)
      return now.slice(0, index) + put + now.slice(index + cut)
    }, text),
  )
const anyText = fc.oneof(
  { weight: 4, arbitrary: spoiled },
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
)

it('answers any policy file with a rule book or with problems that have a line', async () => {
  await fc.assert(
    fc.asyncProperty(anyText, async (text) => {
      const result = await parsePolicy([{ file: 'f.yaml', text }], context)
      if (!('problems' in result)) return
      expect(result.problems.length).toBeGreaterThan(0)
      const lines = text.split('\n').length
      for (const { line, message } of result.problems) {
        expect(line).toBeLessThanOrEqual(lines)
        expect(message).not.toBe('')
      }
    }),
    { ...FUZZ, numRuns: 150 },
  )
})

it('answers any configuration with settings or with problems', async () => {
  await fc.assert(
    fc.asyncProperty(anyText, async (text) => {
      const result = await parseConfig('f.yaml', text)
      expect('config' in result || result.problems.length > 0).toBe(true)
    }),
    { ...FUZZ, numRuns: 150 },
  )
})

it('compiles any condition or refuses it as policy', () => {
  const tokens = [
    'method',
    'path',
    'selectors',
    '==',
    '!=',
    '&&',
    '||',
    '!',
    '(',
    ')',
    '[',
    ']',
    "'a'",
    '1',
    'in',
    '.',
    'size',
    'matches',
    'exists',
    '?',
    ':',
    ',',
    '{',
    '}',
    '"',
    '\\',
  ]
  const source = fc.oneof(
    fc.array(fc.constantFrom(...tokens), { maxLength: 12 }).map((parts) => parts.join(' ')),
    fc.string(),
  )
  fc.assert(
    fc.property(source, (text) => {
      try {
        expect(typeof compileWhen(text).evaluate({})).toBe('boolean')
      } catch (error) {
        expect(error).toMatchObject({ reason: 'policy_invalid' })
      }
    }),
    FUZZ,
  )
})
