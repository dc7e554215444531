/** Questions to servers about tokens: once for all who wait, believed for five seconds, never a failure for an answer. */
import { describe, expect, it } from 'vitest'
import { Live } from '../../../src/base/live.ts'
import type { ClientKeys } from '../../../src/egress/client-key.ts'
import type { IssuerAnswer, IssuerHttp } from '../../../src/egress/issuer-http.ts'
import type { Metadata } from '../../../src/egress/metadata.ts'
import { Introspector } from '../../../src/ingress/introspect.ts'
import { generateKey } from '../../../src/keys/signer.ts'
import type { RuleBook } from '../../../src/policy/book.ts'
import { ManualClock } from '../../support/clock.ts'

const issuer = 'https://login.example.org'
const client = { method: 'private_key_jwt', clientId: 'verifier', keyFile: undefined } as const
const SERVER = { issuer, tokenEndpoint: undefined, client }

function open(first: unknown = { active: true, sub: 'ann' }, wait = async () => {}) {
  const clock = new ManualClock()
  const signer = generateKey('ES256')
  const state: { status: number; body: unknown; endpoint: string | undefined } = {
    status: 200,
    body: first,
    endpoint: `${issuer}/introspect`,
  }
  const asked: { url: string; body: string }[] = []
  const http = {
    fetchBy:
      (_route: unknown, seen: (answer: IssuerAnswer) => void) =>
      async (url: string, { body }: { body?: URLSearchParams }) => {
        asked.push({ url, body: String(body) })
        await wait()
        const text = typeof state.body === 'string' ? state.body : JSON.stringify(state.body)
        seen({ status: state.status, raw: [], body: text })
        return new Response(text, { status: state.status })
      },
  } as unknown as IssuerHttp
  const introspector = new Introspector({
    http,
    metadata: { introspectionEndpoint: async () => state.endpoint } as unknown as Metadata,
    keys: { signerFor: () => signer } as unknown as ClientKeys,
    book: new Live({ serverTls: () => ({ tls: {}, addresses: [] }) } as unknown as RuleBook),
    clock,
  })
  return { clock, state, asked, introspector, ask: (token = 'abc') => introspector.ask(SERVER, token, 'api') }
}

/** As open, with a server that answers when the test says so. */
function openSlow() {
  const answers: (() => void)[] = []
  return { ...open({ active: true }, () => new Promise<void>((resolve) => answers.push(resolve))), answers }
}

const settle = () => new Promise((resolve) => setImmediate(resolve))

describe('an answer about a token', () => {
  it('is asked for once by all who wait, as the client that policy states', async () => {
    const { ask, asked } = open()
    const answers = await Promise.all([ask(), ask(), ask()])
    expect(answers).toEqual(Array(3).fill({ active: true, sub: 'ann' }))
    expect(asked).toHaveLength(1)
    const sent = new URLSearchParams(asked[0]?.body)
    expect([sent.get('token'), sent.get('client_id')]).toEqual(['abc', 'verifier'])
    expect(sent.get('client_assertion')).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/)
  })

  it.each([
    ['an active', { active: true }, { active: true }],
    ['an inactive', { active: false }, undefined],
  ])('of %s one is believed for five seconds, then no more', async (_what, first, expected) => {
    const { ask, asked, clock, state } = open(first)
    expect(await ask()).toEqual(expected)
    state.body = { active: !first.active }
    clock.advance(4_999)
    expect(await ask()).toEqual(expected)
    clock.advance(1)
    expect(await ask()).not.toEqual(expected)
    expect(asked).toHaveLength(2)
  })

  it('is of one token alone', async () => {
    const { ask, asked } = open()
    await ask('one')
    await ask('two')
    expect(asked).toHaveLength(2)
  })

  it.each([
    ['says nothing of active', { sub: 'ann' }],
    ['says so in a text', { active: 'true' }],
    ['is about a token of another issuer', { active: true, iss: 'https://other.example.org' }],
  ])('that %s is no yes', async (_what, body) => {
    expect(await open(body).ask()).toBeUndefined()
  })

  it.each([
    ['an error', 500, { active: true }],
    ['a refused client', 401, { error: 'invalid_client' }],
    ['no JSON', 200, '<html>'],
    ['a list', 200, '[true]'],
    ['a member twice', 200, '{"active":false,"active":true}'],
  ])('that is %s is a failure, which is not kept', async (_what, status, body) => {
    const { ask, state } = open(body)
    state.status = status
    await expect(ask()).rejects.toMatchObject({ reason: 'issuer_unavailable' })
    Object.assign(state, { status: 200, body: { active: true } })
    expect(await ask()).toEqual({ active: true })
  })

  it('is not kept from one route by the tokens that come to another, nor by another server', async () => {
    const { answers, asked, introspector } = openSlow()
    for (let at = 0; at < 100; at += 1) void introspector.ask(SERVER, `made-up-${at}`, 'flooded')
    void introspector.ask(SERVER, 'genuine', 'quiet')
    void introspector.ask({ ...SERVER, issuer: 'https://other.example.org' }, 'elsewhere', 'quiet')
    await settle()
    const tokens = () => asked.map(({ body }) => new URLSearchParams(body).get('token'))
    expect(tokens()).toContain('elsewhere')
    expect(tokens()).toHaveLength(16 + 1)
    answers[0]?.()
    await settle()
    expect(tokens().at(-1)).toBe('genuine')
  })

  it('is not to be had of a server without an endpoint, without a client, nor after the end', async () => {
    const { ask, introspector, state } = open()
    state.endpoint = undefined
    await expect(ask()).rejects.toMatchObject({ reason: 'issuer_unavailable' })
    state.endpoint = `${issuer}/introspect`
    const stranger = introspector.ask({ ...SERVER, client: undefined }, 'abc', 'api')
    await expect(stranger).rejects.toMatchObject({ reason: 'token_required' })
    introspector.stop()
    await expect(ask()).rejects.toMatchObject({ reason: 'draining' })
  })
})
