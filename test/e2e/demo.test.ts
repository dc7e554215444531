/** `npm run demo` as a visitor runs it, and that it would say so if a step went wrong. */
import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { beginning, Teller } from '../demo/tell.ts'
import { ROOT } from '../support/built-agent.ts'

describe('npm run demo', () => {
  it('tells the story within 30 s, without a whole token or proof', () => {
    const { status, stdout } = spawnSync('npm', ['run', '-s', 'demo'], {
      cwd: ROOT,
      encoding: 'utf8',
      timeout: 30_000,
    })
    expect({ status, stdout }).toMatchObject({ status: 0 })
    const answers = [...stdout.matchAll(/^ {2}✓ .*? {2,}(\d{3}) {2,}(\S+)/gm)].map(([, code, why]) => [
      code,
      why,
    ])
    expect(answers).toEqual([
      ['200', 'proved,'],
      ['200', 'taken'],
      ['401', 'invalid_token'],
      ['401', 'invalid_dpop_proof'],
      ['401', 'invalid_dpop_proof'],
      ['401', 'invalid_token'],
      ['403', 'revoked'],
    ])
    expect(stdout).toMatch(/let in, platform has to act: no_proof, .* more/)
    expect(stdout).toMatch(/let in, application has to act: as_bearer/)
    expect(stdout).toMatch(/✓ the probe names who has to mend it\n/)
    expect(stdout).toMatch(/✓ the probe again: \d+ thefts tried, none let in\n/)
    expect(stdout.match(/eyJ[\w-]{10,}/g)).toBeNull()
  })

  it.each([
    ['another status', { status: 200, reason: 'revoked', owner: 'security' }],
    ['another reason', { status: 403, reason: 'policy_denied', owner: 'application' }],
  ])('marks a step that ends with %s', (_what, outcome) => {
    let text = ''
    const teller = new Teller((line) => {
      text += line
    })
    teller.step('ask', outcome, { status: 403, reason: 'revoked' })
    expect([teller.wrong, text]).toEqual([1, expect.stringMatching(/✗ ask.*\n +wanted 403 revoked/)])
  })

  it('marks what does not hold', () => {
    const lines: string[] = []
    const teller = new Teller((line) => lines.push(line))
    teller.check('it holds', true, 'nothing')
    teller.check('it does not', false, 'something')
    expect([teller.wrong, lines.join('')]).toEqual([
      1,
      expect.stringMatching(/✗ it does not\n +wanted something/),
    ])
  })

  it('shows at most 12 characters of a secret', () => {
    expect(beginning('abcdefghijklmnop')).toBe('abcdefghijkl…')
  })
})
