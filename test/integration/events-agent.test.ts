/**
 * Revocations that a whole agent hears: events that are polled for (RFC 8936) or pushed (RFC 8935), and a denylist at a
 * URL. Each is in force for the next request, on connections that were open before, and at other agents on one Redis.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Config } from '../../src/config.ts'
import { parseRedisUrl } from '../../src/ingress/redis-place.ts'
import { call } from '../support/call.ts'
import { freePort, hasRedis, openRedis } from '../support/redis.ts'
import { signToken } from '../support/tokens.ts'
import { CAEP } from '../support/transmitter.ts'
import { until } from '../support/until.ts'
import { openVerifyRig, type VerifyRig, type VerifyRigOptions } from '../support/verify-rig.ts'

const BEARER = 'a-token-of-some-length'
const AUDIENCE = 'https://verifier.example.org'
const WITHIN = 2_000

let dir: string
let connections: Agent

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hf-events-agent-'))
  writeFileSync(join(dir, 'token'), BEARER, { mode: 0o600 })
  connections = new Agent({ keepAlive: true, maxSockets: 1 })
})
afterEach(() => {
  connections.destroy()
  rmSync(dir, { recursive: true, force: true })
})

/** The authorization server tells of its own subjects. */
const transmitter = (poll: boolean) => (issuer: string) =>
  `layer: security
transmitters:
  - issuer: '${issuer}'
    jwks_uri: '${issuer}/jwks'
    audience: '${AUDIENCE}'
    subjects: [{ issuer: '${issuer}', sub: 'ann' }]
    token_file: '${join(dir, 'token')}'
${poll ? `    poll: '${issuer}/poll'\n` : ''}`

const EVENTS = {
  'session-revoked': (now: number) => ({ event_timestamp: now }),
  'credential-change': (now: number) => ({ event_timestamp: now, change_type: 'revoke' }),
  'device-compliance-change': () => ({ current_status: 'not-compliant', previous_status: 'compliant' }),
} as const

function setOf(rig: VerifyRig, type: keyof typeof EVENTS, subject = 'ann'): string {
  const [iss, iat] = [rig.issuerUrl, rig.now()]
  const sub_id = { format: 'iss_sub', iss, sub: subject }
  const events = { [`${CAEP}${type}`]: EVENTS[type](iat) }
  const claims = { iss, aud: AUDIENCE, iat, jti: `${type}-${subject}-${iat}`, sub_id, events }
  return signToken({ alg: 'ES256', kid: 'k1', typ: 'secevent+jwt' }, claims, rig.issuer)
}

/** Asks on the one connection to the verifier that stays open. */
async function ask(rig: VerifyRig, claims: object = {}, socket = rig.socket): Promise<string> {
  // Issued before what is revoked now.
  const { peer: _peer, ...question } = {
    peer: {},
    ...rig.request({ claims: { iat: rig.now() - 2, ...claims } }),
  }
  const { status, body } = await call(socket, 'POST', '/v1/verify', { body: question, agent: connections })
  return status === 200 ? 'ok' : body.error.reason
}

const withEvents = (events: Partial<Config['events']>) => (config: Config) => ({
  ...config,
  events: { ...config.events, ...events },
})

describe('a polled event', () => {
  it.each(Object.keys(EVENTS) as (keyof typeof EVENTS)[])(
    'of the type %s is in force on the next request, and acknowledged',
    async (type) => {
      const polls: { ack?: string[]; setErrs?: object }[] = []
      const sets: Record<string, string> = {}
      const serve: VerifyRigOptions['serve'] = (path, body) => {
        if (path !== '/poll') return undefined
        polls.push(JSON.parse(body))
        return { sets: { ...sets } }
      }
      const config = withEvents({ every: 1 })
      await using rig = await openVerifyRig({ security: transmitter(true), serve, config })
      expect(await ask(rig)).toBe('ok')
      Object.assign(sets, { good: setOf(rig, type), else: setOf(rig, type, 'bob') })
      await until('the event', async () => (await ask(rig)) === 'token_revoked')
      expect(await ask(rig, { sub: 'bob' })).toBe('ok')
      await until('the acknowledgement', () => polls.some(({ ack }) => ack?.includes('good')))
      expect(polls.find(({ setErrs }) => setErrs && 'else' in setErrs)?.setErrs).toMatchObject({
        else: { err: 'access_denied' },
      })
      expect(rig.agent.records.find(({ event, allowed }) => event === 'event' && allowed)).toMatchObject({
        caller: rig.issuerUrl,
      })
      expect(
        Object.values(connections.sockets).flat().length +
          Object.values(connections.freeSockets).flat().length,
      ).toBe(1)
    },
  )
})

/** Pushes one SET; the status of the answer. */
function push(rig: VerifyRig, port: number, set: string, bearer = BEARER): Promise<number> {
  const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/secevent+jwt' }
  return new Promise((resolve, reject) => {
    const sent = request(
      { host: 'localhost', port, method: 'POST', ca: rig.ca.pem, headers, agent: false },
      (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      },
    )
    sent.on('error', reject).end(set)
  })
}

/** An agent that events are pushed to, at `port`, and its rig. */
async function openPushed(port: number, more: (config: Config) => Config = (same) => same) {
  let isListening = false
  return openVerifyRig({
    security: transmitter(false),
    config: (config) => {
      const certificateFile = join(dir, 'events.pem')
      const keyFile = join(dir, 'events-key.pem')
      // Only the first agent of a test is pushed to.
      if (isListening) return more(config)
      isListening = true
      const events = { listen: { host: '127.0.0.1', port }, certificateFile, keyFile }
      return more(withEvents(events)(config))
    },
    files: ({ cert, key }) => {
      writeFileSync(join(dir, 'events.pem'), cert)
      writeFileSync(join(dir, 'events-key.pem'), key, { mode: 0o600 })
    },
  })
}
describe('a pushed event', () => {
  it('is in force when it is answered, for the one it is about, on a connection that was open', async () => {
    const port = await freePort()
    await using rig = await openPushed(port)
    expect([await ask(rig), await ask(rig, { sub: 'bob' })]).toEqual(['ok', 'ok'])
    expect(await push(rig, port, setOf(rig, 'session-revoked'), 'another-token-of-some-length')).toBe(401)
    expect(await push(rig, port, setOf(rig, 'session-revoked', 'bob'))).toBe(400)
    expect(await ask(rig)).toBe('ok')
    expect(await push(rig, port, setOf(rig, 'session-revoked'))).toBe(202)
    expect([await ask(rig), await ask(rig, { sub: 'bob' })]).toEqual(['token_revoked', 'ok'])
    // What is issued after it is good again.
    rig.pass(5)
    expect(await ask(rig, { iat: rig.now() })).toBe('ok')
  })

  it.skipIf(!hasRedis)('at one agent is in force at the other on one Redis server within 2 s', async () => {
    await using redis = await openRedis()
    const port = await freePort()
    const url = parseRedisUrl(redis.url)
    await using rig = await openPushed(port, (config) => ({
      ...config,
      verifier: { ...config.verifier, replay: { ...config.verifier.replay, store: 'redis', url } },
    }))
    await using other = await rig.openAnother()
    const socket = join(other.dir, 'public', 'verifier.sock')
    const isInUse = (agent: typeof other) =>
      agent.records.some(({ event, allowed }) => event === 'replay' && allowed)
    await until('the Redis server to be in use', () => isInUse(other) && isInUse(rig.agent))
    rig.pass(20)
    expect([await ask(rig), await ask(rig, {}, socket)]).toEqual(['ok', 'ok'])
    expect(await push(rig, port, setOf(rig, 'session-revoked'))).toBe(202)
    await until(
      'the other agent to hear',
      async () => (await ask(rig, {}, socket)) === 'token_revoked',
      WITHIN,
    )
    expect(await ask(rig)).toBe('token_revoked')
  })
})

describe('a denylist at a URL', () => {
  it('keeps the agent from being ready until it is there, and is in force on the next request', async () => {
    let list: string | undefined
    const serve: VerifyRigOptions['serve'] = (path) => (path === '/denylist' ? list : undefined)
    await using rig = await openVerifyRig({
      serve,
      config: (config, issuer) => ({
        ...config,
        verifier: {
          ...config.verifier,
          denylist: { ...config.verifier.denylist, url: `${issuer}/denylist`, every: 1 },
        },
      }),
    })
    expect(rig.agent.health.ready).toBe(false)
    const line = (sub: string) => `${JSON.stringify({ sub, until: rig.now() + 600, reason: 'leaked' })}\n`
    list = line('bob')
    await until('the list', () => rig.agent.health.ready)
    expect([await ask(rig), await ask(rig, { sub: 'bob' })]).toEqual(['ok', 'token_revoked'])
    list = line('ann')
    await until('the new list', async () => (await ask(rig)) === 'token_revoked')
    expect(await ask(rig, { sub: 'bob' })).toBe('ok')
    // The last good one stays.
    list = 'no list'
    await until('trouble', () => rig.agent.health.degraded.some(({ code }) => code === 'denylist_stale'))
    expect(await ask(rig)).toBe('token_revoked')
  })
})
