/** Security events over real HTTPS, and denylists on disk and at a URL: what is sent is in force when it is answered. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nowSeconds, systemClock } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import { openDenylistFile } from '../../src/ingress/denylist-file.ts'
import { DenylistUrl } from '../../src/ingress/denylist-url.ts'
import { EventPoll } from '../../src/ingress/event-poll.ts'
import { openEventPush } from '../../src/ingress/event-push.ts'
import type { HttpAnswer, HttpRequest } from '../../src/ingress/http-ask.ts'
import type { PublicServer } from '../../src/serve/public-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { ISSUER, openReceiver, type TestReceiver } from '../support/transmitter.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()
const clock = systemClock
const ann = { issuer: ISSUER, subject: 'staff-ann', issuedAt: 1 }
let receiver: TestReceiver
const stops: (() => void)[] = []

beforeEach(async () => {
  receiver = await openReceiver(clock)
})

afterEach(() => {
  for (const stop of stops.splice(0)) stop()
  receiver[Symbol.dispose]()
})

describe('a pushed event', () => {
  let push: PublicServer
  const refused: string[] = []

  beforeEach(async () => {
    refused.length = 0
    const { cert, key } = ca.serverFiles()
    const [certificateFile, keyFile] = [join(receiver.dir, 'cert'), join(receiver.dir, 'key')]
    writeFileSync(certificateFile, cert)
    writeFileSync(keyFile, key)
    push = await openEventPush({
      host: '127.0.0.1',
      port: 0,
      certificateFile,
      keyFile,
      transmitters: () => [receiver.transmitter],
      events: receiver.events,
      onRefused: (issuer, why) => refused.push(`${issuer}: ${why instanceof Fault ? why.reason : why.code}`),
    })
    stops.push(() => push.stop())
  })

  const send = (body: string, headers: Record<string, string | string[]> = {}, method = 'POST') =>
    new Promise<{ status: number; body: string }>((resolve, reject) => {
      const standard = {
        authorization: `Bearer ${receiver.bearer}`,
        'content-type': 'application/secevent+jwt',
      }
      const sent = request(
        {
          host: 'localhost',
          port: push.port,
          method,
          ca: ca.pem,
          headers: { ...standard, ...headers },
          agent: false,
        },
        (response) => {
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => chunks.push(chunk))
          response.on('end', () =>
            resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
          )
        },
      )
      sent.on('error', reject)
      sent.end(body)
    })

  it('is in force when it is answered', async () => {
    expect(receiver.denies(ann)).toBe(false)
    expect(await send(receiver.set())).toEqual({ status: 202, body: '' })
    expect(receiver.denies(ann)).toBe(true)
  })

  it.each([
    ['without a token', { authorization: '' }, 401, 'authentication_failed'],
    [
      'with another token',
      { authorization: 'Bearer another-token-of-some-length' },
      401,
      'authentication_failed',
    ],
    [
      'with a token of another scheme',
      { authorization: 'Basic a-token-of-some-length' },
      401,
      'authentication_failed',
    ],
    ['of another type', { 'content-type': 'application/jwt' }, 400, 'invalid_request'],
  ])('%s is refused', async (_what, headers, status, err) => {
    const answer = await send(receiver.set(), headers)
    expect([answer.status, JSON.parse(answer.body).err]).toEqual([status, err])
    expect(receiver.denies(ann)).toBe(false)
  })

  it('that is refused is told by its code, and nothing of what was sent comes back', async () => {
    const answer = await send(
      receiver.set({ sub_id: { format: 'iss_sub', iss: ISSUER, sub: 'root-of-all' } }),
    )
    expect([answer.status, JSON.parse(answer.body).err]).toEqual([400, 'access_denied'])
    expect(answer.body).not.toContain('root-of-all')
    const other = await send(receiver.set({ iss: 'https://other.example.org' }))
    expect([other.status, JSON.parse(other.body).err]).toEqual([400, 'invalid_issuer'])
    expect(refused).toEqual([`${ISSUER}: access_denied`, `${ISSUER}: invalid_issuer`])
  })

  it('of no end, or by another method, is refused', async () => {
    const long = await send('x'.repeat(200_000)).catch(() => ({ status: 400 }))
    expect(long.status).toBe(400)
    expect((await send('', {}, 'GET')).status).toBe(405)
  })

  it('is sent again when its receiver is at fault', async () => {
    rmSync(receiver.dir, { recursive: true, force: true })
    // Its token cannot be read any more, so nobody is known.
    expect((await send(receiver.set())).status).toBe(401)
  })
})

describe('a polled event', () => {
  it('is in force when it is acknowledged, and one that is refused is told', async () => {
    const good = receiver.set({ jti: 'good' })
    const bad = receiver.set({ jti: 'bad', aud: 'else' })
    const asked: { ack: string[]; setErrs?: Record<string, { err: string }> }[] = []
    const answers = [{ sets: { good, bad }, moreAvailable: false }, { sets: {} }]
    const refused: string[] = []
    const poll = new EventPoll({
      clock,
      transmitter: () => ({ ...receiver.transmitter, poll: `${ISSUER}/poll` }),
      every: 20,
      ask: async (_url: string, { body = '', headers }: HttpRequest): Promise<HttpAnswer> => {
        expect(headers['authorization']).toBe(`Bearer ${receiver.bearer}`)
        asked.push(JSON.parse(body))
        return { status: 200, raw: [], body: JSON.stringify(answers.shift() ?? { sets: {} }) }
      },
      events: receiver.events,
      onRefused: (_issuer, why) => refused.push(why.code),
      onState: () => {},
    })
    stops.push(() => poll.stop())
    await until('the third request', () => asked.length > 2)
    expect(asked[0]).toMatchObject({ ack: [] })
    expect(asked[1]).toMatchObject({ ack: ['good'], setErrs: { bad: { err: 'invalid_audience' } } })
    expect(asked[2]).toMatchObject({ ack: [] })
    expect([receiver.denies(ann), refused]).toEqual([true, ['invalid_audience']])
  })

  it.each([
    ['status 500', { status: 500, raw: [], body: '' }],
    ['no JSON', { status: 200, raw: [], body: '<html>' }],
    ['no sets', { status: 200, raw: [], body: '{"sets":[]}' }],
  ])('that cannot be had for %s is told as trouble, and asked for again', async (_what, answer) => {
    const states: (Fault | undefined)[] = []
    let asked = 0
    const poll = new EventPoll({
      clock,
      transmitter: () => ({ ...receiver.transmitter, poll: `${ISSUER}/poll` }),
      every: 10,
      ask: async () => {
        asked += 1
        return answer
      },
      events: receiver.events,
      onRefused: () => {},
      onState: (fault) => states.push(fault),
    })
    stops.push(() => poll.stop())
    await until('a second try', () => asked > 1)
    expect(states[0]).toBeInstanceOf(Fault)
  })
})

describe('a denylist', () => {
  const line = (sub: string) => `{"sub":"${sub}","until":${nowSeconds(clock) + 600},"reason":"x"}\n`
  const denies = (subject: string) => receiver.denies({ subject })

  it('in a file is read at start and when it changes; the last good one stays', async () => {
    const dir = mkdtempSync(join(receiver.dir, 'list-'))
    const file = join(dir, 'denylist.jsonl')
    const states: (Fault | undefined)[] = []
    const options = {
      clock,
      file,
      denylist: receiver.denylist,
      onState: (fault?: Fault) => states.push(fault),
    }
    await expect(openDenylistFile(options)).rejects.toThrow(Fault)
    writeFileSync(file, line('ann'))
    const list = await openDenylistFile(options)
    stops.push(() => list.stop())
    expect([denies('ann'), denies('bob')]).toEqual([true, false])
    writeFileSync(`${file}.new`, line('bob'))
    renameSync(`${file}.new`, file)
    await until('the new list', () => denies('bob') && !denies('ann'))
    writeFileSync(file, `${line('eve')}{"sub":`)
    await until('trouble', () => states.at(-1))
    expect(states.at(-1)?.message).toContain('denylist.jsonl:2: ')
    expect([denies('bob'), denies('eve')]).toEqual([true, false])
  })

  it('at a URL is asked for with its tag; the last good one stays', async () => {
    const answers: HttpAnswer[] = [
      { status: 200, raw: ['ETag', '"1"'], body: line('ann') },
      { status: 304, raw: [], body: '' },
      { status: 503, raw: [], body: '' },
      { status: 200, raw: ['ETag', '"2"'], body: 'not a list' },
      { status: 200, raw: [], body: line('bob') },
    ]
    const tags: (string | undefined)[] = []
    const seen: (string | undefined)[] = []
    const url = new DenylistUrl({
      clock,
      url: 'https://lists.example.org/deny',
      every: 10,
      ask: async (_url, { headers }) => {
        tags.push(headers['if-none-match'])
        seen.push(`${denies('ann')} ${denies('bob')}`)
        return answers.shift() ?? { status: 304, raw: [], body: '' }
      },
      denylist: receiver.denylist,
      onState: () => {},
    })
    stops.push(() => url.stop())
    await until('six requests', () => tags.length > 5)
    expect(tags.slice(0, 6)).toEqual([undefined, '"1"', '"1"', '"1"', '"1"', undefined])
    expect(seen.slice(0, 6)).toEqual([
      'false false',
      'true false',
      'true false',
      'true false',
      'true false',
      'false true',
    ])
  })
})
