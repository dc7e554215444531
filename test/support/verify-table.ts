/** The one table of requests, asked by any way in: what is answered, what is on record, what the challenge says. */
import { expect } from 'vitest'
import { until } from './until.ts'
import { VERIFY_CASES, type VerifyCase } from './verify-cases.ts'
import type { Received, VerifyRig } from './verify-rig.ts'
import type { Heard, Way } from './verify-ways.ts'

const isProxy = ({ name }: Way) => name.startsWith('forward-auth')

/** Proxies that ask by HTTP know 401, 403 and their own errors. */
export function statusAt(way: Way, status: number): number {
  return isProxy(way) && status !== 200 && status !== 401 && status < 500 ? 403 : status
}

/** The cases that can be asked by that way, with their names. */
export function casesFor(way: Way): readonly (readonly [name: string, each: VerifyCase])[] {
  return VERIFY_CASES.filter(({ needsPeer }) => way.hasPeer || !needsPeer).map((each) => [each.name, each])
}

export async function expectAnswer(rig: VerifyRig, way: Way, each: VerifyCase): Promise<void> {
  const requests = each.requests(rig)
  for (const request of requests.slice(0, -1))
    expect((await way.ask(rig.socket, request)).isAllowed).toBe(true)
  const last = requests.at(-1)
  if (!last) throw new Error('a case without a request')
  const heard = await way.ask(rig.socket, last)
  const { reason: recorded = 'ok', allowed } = rig.verdicts().at(-1) ?? {}
  expect({ allowed: heard.isAllowed, status: heard.status, reason: recorded }).toEqual({
    allowed: each.reason === 'ok',
    status: statusAt(way, each.status),
    reason: each.reason,
  })
  expect(allowed).toBe(each.reason === 'ok')
  if (heard.reason !== undefined) expect(heard.reason).toBe(each.reason)
  const said = heard.headers['www-authenticate']
  expect(/error="([a-z_]+)"/.exec(said ?? '')?.[1]).toBe(each.error)
  expect(said !== undefined).toBe(each.status === 401 || each.error !== undefined)
  expect(heard.headers['dpop-nonce'] !== undefined).toBe(each.error === 'use_dpop_nonce')
}

const COPIES = 100

/** 100 copies of one request at once: one is allowed, and every other is a replay. */
export async function expectOneOfMany(
  rig: VerifyRig,
  ask: (request: Received) => Promise<Pick<Heard, 'isAllowed'>>,
): Promise<void> {
  const before = rig.verdicts().length
  const request = rig.request()
  const heard = await Promise.all(Array.from({ length: COPIES }, () => ask(request)))
  expect(heard.filter(({ isAllowed }) => isAllowed)).toHaveLength(1)
  // Repeated refusals are counted, and their number is on record a second later.
  const replayed = () => {
    const refused = rig
      .verdicts()
      .slice(before)
      .filter(({ reason }) => reason === 'proof_replayed')
    return refused.reduce((sum, { count = 1 }) => sum + count, 0)
  }
  await until('all refusals to be on record', () => replayed() >= COPIES - 1)
  expect(replayed()).toBe(COPIES - 1)
}
