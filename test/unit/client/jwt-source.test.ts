/** JWT-SVIDs and verdicts as the agent answers them. */
import { describe, expect, it } from 'vitest'
import { jwtSource } from '../../../src/client/jwt-source.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeAgent } from '../../support/fake-agent.ts'
import { faultOf } from '../../support/faults.ts'

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
const TOKEN = `${encode({ alg: 'ES256' })}.${encode({ exp: 1_800_000_000 })}.c2ln`

async function open() {
  const agent = new FakeAgent()
  const opening = jwtSource(agent, {}, new ManualClock())
  agent.last.say({ bundles: { 'spiffe://example.org': Buffer.from('{"keys":[]}') } })
  return { agent, source: await opening }
}

describe('a source of JWT-SVIDs', () => {
  it.each([
    ['one audience', 'a', {}, { audience: ['a'], spiffe_id: '' }],
    ['several audiences', ['a', 'b'], {}, { audience: ['a', 'b'], spiffe_id: '' }],
    ['one identity', 'a', { spiffeId: 'spiffe://x/y' }, { audience: ['a'], spiffe_id: 'spiffe://x/y' }],
  ] as const)('asks for %s', async (_what, audience, options, request) => {
    const { agent, source } = await open()
    agent.answer = () => ({
      svids: [{ spiffe_id: 'spiffe://x/y', svid: TOKEN, hint: 'h' }, { svid: 'second' }],
    })
    expect(await source.fetchJwt(audience, options)).toEqual({
      spiffeId: 'spiffe://x/y',
      token: TOKEN,
      audience: request.audience,
      expiresAt: 1_800_000_000,
      hint: 'h',
    })
    expect(agent.asked).toEqual([{ method: 'SpiffeWorkloadAPI/FetchJWTSVID', request }])
  })

  it.each([
    ['nothing', {}],
    ['a text that is no JWT', { svids: [{ svid: 'canary' }] }],
    ['a JWT without expiry', { svids: [{ svid: `e30.${encode({ canary: 1 })}.x` }] }],
    ['a JWT whose expiry is a text', { svids: [{ svid: `e30.${encode({ exp: 'canary' })}.x` }] }],
  ])('refuses %s as an answer and does not quote it', async (_what, answer) => {
    const { agent, source } = await open()
    agent.answer = () => answer
    const error = await source.fetchJwt('a').catch((caught: unknown) => caught)
    expect(error).toMatchObject({ reason: 'svid_invalid' })
    expect(JSON.stringify(error)).not.toContain('canary')
  })

  it('gives the claims of a verdict as plain values', async () => {
    const { agent, source } = await open()
    const fields = {
      sub: { stringValue: 'spiffe://x/y' },
      exp: { numberValue: 7 },
      ok: { boolValue: false },
      none: { nullValue: 'NULL_VALUE' },
      list: {
        listValue: { values: [{ numberValue: 0 }, { structValue: { fields: { a: { stringValue: '' } } } }] },
      },
    }
    agent.answer = () => ({ spiffe_id: 'spiffe://x/y', claims: { fields } })
    expect(await source.validate('t', 'a')).toEqual({
      spiffeId: 'spiffe://x/y',
      claims: { sub: 'spiffe://x/y', exp: 7, ok: false, none: null, list: [0, { a: '' }] },
    })
    expect(agent.asked).toEqual([
      { method: 'SpiffeWorkloadAPI/ValidateJWTSVID', request: { svid: 't', audience: 'a' } },
    ])
  })

  it('gives the newest bundle of a trust domain and no other', async () => {
    const { agent, source } = await open()
    agent.last.say({ bundles: { 'spiffe://example.org': Buffer.from('{"keys":[1]}') } })
    expect(source.bundle('example.org')).toBe('{"keys":[1]}')
    expect(faultOf(() => source.bundle('other.test'))).toMatch(/^bundle_missing/)
  })
})
