/** What security events revoke, for whom their transmitter may speak, and what a hostile one can send. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import { SetRefusal } from '../../../src/ingress/event-token.ts'
import { ecPair } from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { LAYERS, problemsIn } from '../../support/policy.ts'
import { signToken } from '../../support/tokens.ts'
import { ANN, CAEP, ISSUER, openReceiver, type TestReceiver } from '../../support/transmitter.ts'

let clock: ManualClock
let receiver: TestReceiver

beforeEach(async () => {
  clock = new ManualClock()
  receiver = await openReceiver(clock)
})

afterEach(() => receiver[Symbol.dispose]())

const take = (claims?: object, header?: object) =>
  receiver.events.take(receiver.set(claims, header), receiver.transmitter)
const event = (type: string, members: object = {}) => ({ events: { [CAEP + type]: members } })
const ann = (issuedAt?: number) => receiver.denies({ issuer: ISSUER, subject: 'staff-ann', issuedAt })

describe('an event', () => {
  it('session-revoked denies what was issued before it, and nothing that comes after', async () => {
    const now = nowSeconds(clock)
    await take()
    expect([ann(now - 60), ann(now), ann(now + 1)]).toEqual([true, true, false])
    expect(receiver.denies({ issuer: ISSUER, subject: 'staff-bob', issuedAt: now - 60 })).toBe(false)
    expect(receiver.denies({ issuer: 'https://other.example.org', subject: 'staff-ann' })).toBe(false)
    clock.advance(600_000)
    expect(ann(now - 60)).toBe(false)
  })

  it.each([
    ['credential-change', { change_type: 'revoke', credential_type: 'fido2-roaming' }, true],
    ['credential-change', { change_type: 'delete', credential_type: 'password' }, true],
    ['credential-change', { change_type: 'update', credential_type: 'password' }, false],
    ['device-compliance-change', { previous_status: 'compliant', current_status: 'not-compliant' }, true],
    ['assurance-level-change', {}, false],
  ])('%s with %j denies: %s', async (type, members, denied) => {
    await take(event(type, members))
    expect(ann(1)).toBe(denied)
  })

  it('of a device that is compliant again lifts that, and only that; an older one lifts nothing', async () => {
    const compliance = (current_status: string) => event('device-compliance-change', { current_status })
    const iat = nowSeconds(clock)
    await take({ ...compliance('not-compliant'), iat })
    await take({ ...compliance('compliant'), iat: iat - 10 })
    expect(ann(iat + 100)).toBe(true)
    await take({ iat })
    await take({ ...compliance('compliant'), iat: iat + 1 })
    expect([ann(iat + 100), ann(iat - 100)]).toEqual([false, true])
  })

  it('of a device that is older than its last one, and comes late, changes nothing', async () => {
    const compliance = (current_status: string) => event('device-compliance-change', { current_status })
    const iat = nowSeconds(clock)
    await take({ ...compliance('compliant'), iat })
    await take({ ...compliance('not-compliant'), iat: iat - 10 })
    expect(ann(iat + 100)).toBe(false)
    await take({ ...compliance('not-compliant'), iat: iat + 1 })
    expect(ann(iat + 100)).toBe(true)
  })

  it('of a workload denies its SPIFFE ID, also as the device of a complex subject', async () => {
    const uri = (path: string) => ({ format: 'uri', uri: `spiffe://example.org/laptops/${path}` })
    await take({ sub_id: uri('one') })
    await take({ sub_id: { format: 'complex', device: uri('two') } })
    const denied = ['one', 'two', 'three'].map((path) =>
      receiver.denies({ spiffeId: `spiffe://example.org/laptops/${path}` }),
    )
    expect(denied).toEqual([true, true, false])
  })

  it('in the form before SSF 1.0 has its subject inside', async () => {
    await take({ sub_id: undefined, ...event('session-revoked', { subject: ANN }) })
    expect(ann(1)).toBe(true)
  })

  it('that is told again is taken and does nothing', async () => {
    const set = receiver.set()
    for (let times = 0; times < 3; times++) await receiver.events.take(set, receiver.transmitter)
    expect(receiver.notes).toHaveLength(1)
  })

  it('outlives a restart', async () => {
    await take()
    receiver.again()
    expect(ann(1)).toBe(true)
  })
})

describe('a transmitter', () => {
  it.each([
    ['another subject', { sub_id: { ...ANN, sub: 'root' } }],
    ['a subject of another issuer', { sub_id: { ...ANN, iss: 'https://other.example.org' } }],
    ['another workload', { sub_id: { format: 'uri', uri: 'spiffe://example.org/web' } }],
    [
      'a workload whose name begins alike',
      { sub_id: { format: 'uri', uri: 'spiffe://example.org/laptops2' } },
    ],
    ['a token of it does not know whose', { sub_id: { format: 'jwt_id', iss: ISSUER, jti: 't-1' } }],
  ])('cannot revoke %s', async (_what, claims) => {
    await expect(take(claims)).rejects.toMatchObject({ code: 'access_denied' })
    expect(receiver.denylist.count).toBe(0)
  })

  it('with one event that is refused changes nothing by the others', async () => {
    const events = {
      [`${CAEP}session-revoked`]: { subject: ANN },
      [`${CAEP}credential-change`]: { change_type: 'revoke', subject: { ...ANN, sub: 'root' } },
    }
    await expect(take({ sub_id: undefined, events })).rejects.toBeInstanceOf(SetRefusal)
    expect(receiver.denylist.count).toBe(0)
  })
})

describe('a SET', () => {
  it.each([
    ['of another type', {}, { typ: 'JWT' }, 'invalid_request'],
    ['of no type', {}, { typ: undefined }, 'invalid_request'],
    ['with alg none', {}, { alg: 'none' }, 'invalid_request'],
    ['with critical extensions', {}, { crit: ['b64'] }, 'invalid_request'],
    ['of a key that is not known', {}, { kid: 's2' }, 'invalid_key'],
    ['of no key', {}, { kid: undefined }, 'invalid_key'],
    ['of another issuer', { iss: 'https://other.example.org' }, {}, 'invalid_issuer'],
    ['for another receiver', { aud: 'https://other.example.org' }, {}, 'invalid_audience'],
    ['for nobody', { aud: undefined }, {}, 'invalid_audience'],
    ['that is an ID token', { sub: 'ann' }, {}, 'invalid_request'],
    ['that expires', { exp: 9_999_999_999 }, {}, 'invalid_request'],
    ['without jti', { jti: undefined }, {}, 'invalid_request'],
    ['without iat', { iat: undefined }, {}, 'invalid_request'],
    ['of the future', { iat: 1_700_000_100 }, {}, 'invalid_request'],
    ['of long ago', { iat: 1_600_000_000 }, {}, 'invalid_request'],
    ['without events', { events: undefined }, {}, 'invalid_request'],
    ['with a list of events', { events: [] }, {}, 'invalid_request'],
    [
      'with an event that is null and no subject',
      { sub_id: undefined, events: { [`${CAEP}session-revoked`]: null } },
      {},
      'invalid_request',
    ],
    ['of an email address', { sub_id: { format: 'email', email: 'ann@example.org' } }, {}, 'invalid_request'],
    ['of a subject without end', { sub_id: { ...ANN, sub: 's'.repeat(4000) } }, {}, 'invalid_request'],
    [
      'of complex subjects in each other',
      { sub_id: { format: 'complex', user: { format: 'complex', user: ANN } } },
      {},
      'invalid_request',
    ],
  ])('%s is refused', async (_what, claims, header, code) => {
    await expect(take(claims, header)).rejects.toMatchObject({ code })
    expect(receiver.denylist.count).toBe(0)
  })

  it('by another key is refused, and so is one that is none', async () => {
    const forged = signToken({ alg: 'ES256', kid: 's1', typ: 'secevent+jwt' }, { iss: ISSUER }, ecPair())
    for (const token of [forged, '', 'a.b.c', `${receiver.set()}.x`])
      await expect(receiver.events.take(token, receiver.transmitter)).rejects.toBeInstanceOf(SetRefusal)
  })

  it('cannot date its event after itself', async () => {
    const now = nowSeconds(clock)
    await take(event('session-revoked', { event_timestamp: now + 1_000_000 }))
    expect([ann(now), ann(now + 1)]).toEqual([true, false])
  })
})

describe('policy', () => {
  const transmitter = (over: string) => `layer: security
transmitters:
  - { issuer: "${ISSUER}", jwks_uri: "${ISSUER}/jwks", audience: a, subjects: [{ issuer: "${ISSUER}", sub: "*" }], token_file: /run/token${over} }
`
  it.each([
    ['twice', { one: transmitter(''), two: transmitter('') }, 'is there twice'],
    ['over plain HTTP', { one: transmitter(', poll: "http://idp.example.org/poll"') }, 'speaks https'],
    ['with a star in the middle', { one: transmitter('').replace('"*"', '"a*b"') }, 'star'],
    ['of nobody', { one: transmitter('').replace(/\[.*\]/, '[]') }, 'too small'],
    ['with a relative file', { one: transmitter('').replace('/run/token', 'token') }, 'absolute'],
  ])('with a transmitter %s is refused', async (_what, files, what) => {
    expect((await problemsIn({ ...LAYERS, ...files })).join('\n')).toContain(what)
  })
})
