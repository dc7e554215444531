import { describe, expect, it } from 'vitest'
import { Fault, type Reason } from '../../../src/base/fault.ts'
import { problemFault } from '../../../src/base/problem.ts'
import { REASONS } from '../../../src/base/reasons.ts'
import { exitCodeOf, failureJson, failureText, refuseSecrets } from '../../../src/cli/failure.ts'
import { faultOf } from '../../support/faults.ts'

describe('failureText', () => {
  it('says what, why, what to do and where to read on', () => {
    const fault = new Fault('target_unknown', 'no target has the origin https://a.test')
    expect(failureText(fault, false).split('\n')).toEqual([
      'Error: no target has this origin',
      '  why  no target has the origin https://a.test',
      '  do   Add the origin to a target in a platform policy file.',
      '  ask  whoever owns platform',
      '  code target_unknown  https://holdfast.dev/reasons#target_unknown',
      '',
    ])
  })

  it('does not say the same thing twice', () => {
    expect(failureText(new Fault('no_identity'), false)).not.toContain('why')
  })

  it('lists every problem of a file under one heading', () => {
    const fault = problemFault('policy_invalid', [
      { file: 'a.yaml', line: 3, message: 'one' },
      { file: 'b.yaml', line: 0, message: 'two' },
    ])
    expect(failureText(fault, false)).toContain('  why  a.yaml:3: one\n       b.yaml: two\n')
  })

  it('says when to try again', () => {
    expect(failureText(new Fault('rate_limited', undefined, { retryAfterSeconds: 3 }), false)).toContain(
      'again in 3s',
    )
  })

  it('lets no message move the cursor', () => {
    const fault = problemFault('policy_invalid', [{ file: 'a\u001b[2J', line: 1, message: 'x\r\ny' }])
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are looked for.
    expect(failureText(fault, false)).not.toMatch(/[\u001b\r]/)
  })

  it('is coloured only when asked to', () => {
    expect(failureText(new Fault('bug'), true)).toContain('\u001b[31mError:\u001b[0m')
    expect(failureText(new Fault('bug'), false)).not.toContain('\u001b')
  })
})

describe('failureJson', () => {
  it('is one line in the shape of the wire, with every place that was tried', () => {
    const problems = [{ file: '/run/x.sock (default)', line: 0, message: 'does not exist' }]
    const text = failureJson(new Fault('agent_unreachable', undefined, { cause: problems }))
    expect(text.split('\n')).toHaveLength(2)
    expect(JSON.parse(text)).toEqual({
      error: {
        reason: 'agent_unreachable',
        message: 'no agent answers on the socket',
        action: expect.stringContaining('holdfast run'),
        owner: 'agent',
        docs: 'https://holdfast.dev/reasons#agent_unreachable',
        problems: ['/run/x.sock (default): does not exist'],
      },
    })
  })
})

describe('exitCodeOf', () => {
  it.each<[Reason, number]>([
    ['usage', 2],
    ['invalid_request', 2],
    ['config_invalid', 2],
    ['policy_invalid', 2],
    ['url_refused', 2],
    ['agent_unreachable', 3],
    ['not_ready', 3],
    ['draining', 3],
    ['no_identity', 4],
    ['policy_denied', 4],
    ['revoked', 4],
    ['admin_denied', 4],
    ['audit_unavailable', 4],
    ['bug', 1],
  ])('is for %s %d', (reason, code) => expect(exitCodeOf(new Fault(reason))).toBe(code))

  it('is never success', () => {
    for (const reason of Object.keys(REASONS) as Reason[])
      expect(exitCodeOf(new Fault(reason))).toBeGreaterThan(0)
  })
})

describe('refuseSecrets', () => {
  const TOKEN = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln'

  it.each([
    ['alone', ['proof', TOKEN], 2],
    ['behind an equals sign', ['proof', 'GET', `--token-file=${TOKEN}`], 3],
    ['in a query', ['proof', 'GET', `https://a.test/?access_token=${TOKEN}`], 3],
    ['as a PEM key', ['x', '-----BEGIN PRIVATE KEY-----'], 2],
  ])('refuses a secret %s and names its place, not its text', (_where, args, place) => {
    const said = faultOf(() => refuseSecrets(args))
    expect(said).toMatch(new RegExp(`^usage: argument ${place} looks like a token or a key`))
    expect(said).not.toContain('eyJ')
  })

  it('lets everything else pass', () => {
    refuseSecrets([
      'proof',
      'GET',
      'https://api.example.test/eyJ',
      '--jkt',
      'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs',
    ])
  })
})
