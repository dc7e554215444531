/** Status lists: read as the draft has it, kept as long as they may be, fetched once, and never believed by halves. */
import { deflateSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import { Fault } from '../../../src/base/fault.ts'
import { StatusLists } from '../../../src/ingress/status-lists.ts'
import { ecPair } from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { type StatusTokenOf, statusToken } from '../../support/status-list.ts'

const ORIGIN = 'https://status.example.org'
const URI = `${ORIGIN}/lists/1`
const SERVER = {
  issuer: 'https://login.example.org',
  tokenEndpoint: undefined,
  client: undefined,
  statusLists: [ORIGIN],
}
const [issuer, stranger] = [ecPair(), ecPair()]

function open() {
  const clock = new ManualClock(1_700_000_000_000)
  const state = { statuses: [0, 1], by: issuer, over: {} as Partial<StatusTokenOf>, fetched: 0, fails: false }
  const lists = new StatusLists({
    clock,
    fetch: async (_server, uri) => {
      state.fetched += 1
      if (state.fails) throw new Fault('issuer_unavailable')
      return statusToken(state.by, { uri, iat: nowSeconds(clock), statuses: state.statuses, ...state.over })
    },
    keys: { find: (_server, kid) => (kid === 'k1' ? issuer.publicKey : undefined) },
    maxAge: 300,
    stale: 600,
    skew: 5,
  })
  const check = (status: unknown, rule: 'if_present' | 'required' = 'if_present') =>
    lists.check(SERVER, { status }, rule)
  const told = async (idx: unknown, uri: unknown = URI) => {
    try {
      await check({ status_list: { idx, uri } })
      return 'ok'
    } catch (error) {
      return (error as Fault).reason
    }
  }
  return { clock, state, lists, check, told }
}

/** The lists of the draft, s.4.1, as they stand there. */
const DRAFT = [
  [1, 'eNrbuRgAAhcBXQ', [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]],
  [2, 'eNo76fITAAPfAgc', [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]],
] as const

describe('a status', () => {
  it.each(DRAFT)('of %i bits is where the draft has it', async (bits, lst, statuses) => {
    const { state, told } = open()
    state.over = { claims: { status_list: { bits, lst } } }
    const heard = await Promise.all(statuses.map((_status, index) => told(index)))
    expect(heard).toEqual(statuses.map((status) => (status === 0 ? 'ok' : 'token_revoked')))
    expect(await told(statuses.length)).toBe('token_status')
  })

  it.each([4, 8])('of %i bits is told apart from its neighbours', async (bits) => {
    const { state, told } = open()
    state.statuses = [0, 2 ** bits - 1, 0, 2]
    state.over = { bits }
    const heard = await Promise.all([0, 1, 2, 3].map((index) => told(index)))
    expect(heard).toEqual(['ok', 'token_revoked', 'ok', 'token_revoked'])
  })

  it.each([
    ['no index', { uri: URI }],
    ['a negative index', { idx: -1, uri: URI }],
    ['half an index', { idx: 0.5, uri: URI }],
    ['an index that is text', { idx: '0', uri: URI }],
    ['no URI', { idx: 0 }],
    ['another origin', { idx: 0, uri: 'https://status.example.org.evil.test/lists/1' }],
    ['another port', { idx: 0, uri: 'https://status.example.org:8443/lists/1' }],
    ['plain HTTP', { idx: 0, uri: 'http://status.example.org/lists/1' }],
    ['a user in the URI', { idx: 0, uri: 'https://me@status.example.org/lists/1' }],
    ['a fragment', { idx: 0, uri: `${URI}#1` }],
    ['nothing that is an object', 'x'],
  ])('of a token that names %s is refused, and nothing is fetched', async (_what, list) => {
    const { state, told, check } = open()
    expect(() => check({ status_list: list }, 'required')).toThrow(Fault)
    expect(state.fetched).toBe(0)
    expect(await told(0)).toBe('ok')
  })

  it('is wanted only where the route says so', () => {
    const { check, state } = open()
    expect(check(undefined)).toBeUndefined()
    expect(check({ other: {} })).toBeUndefined()
    expect(() => check(undefined, 'required')).toThrow('wants one')
    expect(() => check({ other: {} }, 'required')).toThrow('wants one')
    expect(state.fetched).toBe(0)
  })
})

describe('a list', () => {
  it('is fetched once for all who wait, then known at once', async () => {
    const { check, state, told } = open()
    expect(await Promise.all([told(0), told(1), told(0)])).toEqual(['ok', 'token_revoked', 'ok'])
    expect(state.fetched).toBe(1)
    expect(check({ status_list: { idx: 0, uri: URI } })).toBeUndefined()
  })

  it('is asked for again once its ttl is over: who is revoked meanwhile is refused', async () => {
    const { clock, state, told } = open()
    state.over = { claims: { ttl: 20 } }
    expect(await told(0)).toBe('ok')
    state.statuses = [1, 1]
    clock.advance(19_999)
    expect(await told(0)).toBe('ok')
    clock.advance(1)
    expect(await told(0)).toBe('token_revoked')
    expect(state.fetched).toBe(2)
  })

  it.each([{}, { ttl: 86_400 }])('with %o is asked for again after the longest age', async (claims) => {
    const { clock, state, told } = open()
    state.over = { claims }
    await told(0)
    state.statuses = [1]
    clock.advance(299_999)
    expect(await told(0)).toBe('ok')
    clock.advance(1)
    expect(await told(0)).toBe('token_revoked')
  })

  it('is used on for a while when it cannot be had, then no more; and again when it can', async () => {
    const { clock, state, told } = open()
    await told(0)
    state.fails = true
    clock.advance(899_999)
    expect([await told(0), await told(1)]).toEqual(['ok', 'token_revoked'])
    clock.advance(1)
    expect(await told(0)).toBe('status_unavailable')
    state.fails = false
    clock.advance(1_000)
    expect(await told(0)).toBe('ok')
  })

  it('is never used beyond its end', async () => {
    const { clock, state, told } = open()
    state.over = { claims: { exp: nowSeconds(clock) + 60 } }
    expect(await told(0)).toBe('ok')
    state.fails = true
    clock.advance(65_000)
    expect(await told(0)).toBe('status_unavailable')
  })

  it('that cannot be had is asked for at most once a second', async () => {
    const { clock, state, told } = open()
    state.fails = true
    for (let at = 0; at < 50; at++) expect(await told(0)).toBe('status_unavailable')
    expect(state.fetched).toBe(1)
    clock.advance(1_000)
    await told(0)
    expect(state.fetched).toBe(2)
  })

  it('does not give way to an older one', async () => {
    const { clock, state, told } = open()
    expect(await told(1)).toBe('token_revoked')
    state.statuses = [0, 0]
    state.over = { iat: nowSeconds(clock) - 1 }
    clock.advance(300_000)
    expect(await told(1)).toBe('token_revoked')
  })

  const bomb = deflateSync(Buffer.alloc(9 * 1024 * 1024)).toString('base64url')
  it.each([
    ['of another typ', { header: { typ: 'at+jwt' } }],
    ['without a typ', { header: { typ: undefined } }],
    ['with a critical extension', { header: { crit: ['x'] } }],
    ['without a kid', { header: { kid: undefined } }],
    ['of an unknown key', { header: { kid: 'k2' } }],
    ['without an alg', { header: { alg: 'none' } }],
    ['of another URI', { claims: { sub: `${URI}0` } }],
    ['without a URI', { claims: { sub: undefined } }],
    ['of another issuer', { claims: { iss: 'https://evil.example.org' } }],
    ['without iat', { claims: { iat: undefined } }],
    ['of tomorrow', { claims: { iat: 1_700_086_400 } }],
    ['of yesterday', { claims: { exp: 1_699_913_600 } }],
    ['with an exp that is text', { claims: { exp: '1' } }],
    ['with a ttl of zero', { claims: { ttl: 0 } }],
    ['of three bits', { claims: { status_list: { bits: 3, lst: 'eNrbuRgAAhcBXQ' } } }],
    ['that is not base64url', { claims: { status_list: { bits: 1, lst: 'eNrb uRgAAhcBXQ' } } }],
    ['that is not zlib', { claims: { status_list: { bits: 1, lst: 'AAAA' } } }],
    ['that is cut off', { claims: { status_list: { bits: 1, lst: 'eNrbuRg' } } }],
    ['that inflates to more than anybody keeps', { claims: { status_list: { bits: 1, lst: bomb } } }],
  ])('%s is not believed', async (_what, over) => {
    const { state, told } = open()
    state.over = over
    expect(await told(0)).toBe('status_unavailable')
  })

  it('of a stranger is not believed', async () => {
    const { state, told } = open()
    state.by = stranger
    expect(await told(0)).toBe('status_unavailable')
  })

  it('may name its issuer, and be of the long name of its type', async () => {
    const { state, told } = open()
    state.over = { header: { typ: 'application/statuslist+jwt' }, claims: { iss: SERVER.issuer } }
    expect(await told(0)).toBe('ok')
  })

  it('one of too many gives way, the least recently used first', async () => {
    const { state, told } = open()
    for (let at = 0; at < 257; at++) await told(0, `${ORIGIN}/lists/${at}`)
    expect(state.fetched).toBe(257)
    await told(0, `${ORIGIN}/lists/256`)
    expect(state.fetched).toBe(257)
    await told(0, `${ORIGIN}/lists/0`)
    expect(state.fetched).toBe(258)
  })
})
