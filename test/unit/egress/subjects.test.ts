import { setMaxListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { Secret } from '../../../src/base/secret.ts'
import { checkSubject, exchangedFor } from '../../../src/egress/subject-rule.ts'
import { readSubject } from '../../../src/egress/subject-token.ts'
import { Subjects } from '../../../src/egress/subjects.ts'
import type { ExchangeRule, Server, Target, TargetIdentity } from '../../../src/policy/grant.ts'
import { hashOf } from '../../../src/proof/jwt.ts'
import { entry as entryNamed } from '../../support/book.ts'
import { ecPair } from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { signToken } from '../../support/tokens.ts'

const HOME = 'https://login.example.org'
const AS = 'https://as.example.org'
const key = ecPair()
const jwt = (claims: Record<string, unknown>) => signToken({ alg: 'ES256' }, claims, key)

function open(perInstance = 3, limit = 5) {
  const clock = new ManualClock()
  const subjects = new Subjects({ clock, perInstance, limit })
  const now = Math.floor(clock.now() / 1000)
  const token = (sub: string, exp = now + 600) => jwt({ iss: HOME, sub, exp })
  return { clock, subjects, now, token }
}

let instances = 0

function ownerOf(name = 'web') {
  const ending = new AbortController()
  setMaxListeners(1, ending.signal)
  instances += 1
  const owner = {
    spiffeId: `spiffe://example.org/${name}`,
    instance: { key: `process:${instances}:1`, signal: ending.signal },
  }
  return { owner, end: () => ending.abort() }
}

const add = (subjects: Subjects, { owner }: ReturnType<typeof ownerOf>, token: string) =>
  subjects.add(owner, new Secret(token))

function reasonOf(run: () => unknown): string {
  try {
    run()
    return 'none'
  } catch (error) {
    return error instanceof Fault ? error.reason : String(error)
  }
}

describe('a handle', () => {
  it('is random, says nothing of its token, and finds it for its owner', () => {
    const { subjects, token, now } = open()
    const one = ownerOf()
    const ada = token('ada')
    const { handle, expires } = add(subjects, one, ada)
    expect(handle).toMatch(/^[A-Za-z0-9_-]{43}$/)
    expect([handle, expires]).not.toEqual([hashOf(ada), 0])
    expect(expires).toBe(now + 600)
    const found = subjects.find(one.owner, handle)
    expect(found.token.reveal()).toBe(ada)
    expect(JSON.stringify({ ...found, signal: 0, ending: 0, owner: 0 })).not.toContain(ada)
    expect(JSON.stringify({ ...found, signal: 0, ending: 0, owner: 0 })).not.toContain(handle)
    expect(add(subjects, ownerOf(), ada).handle).not.toBe(handle)
  })

  it('is the same for the same token of the same owner, and counts once', () => {
    const { subjects, token } = open()
    const one = ownerOf()
    const ada = token('ada')
    const handles = [1, 2, 3, 4].map(() => add(subjects, one, ada).handle)
    expect([new Set(handles).size, subjects.count]).toEqual([1, 1])
  })

  it('is another in each transaction, which conditions then see', () => {
    const { subjects, token } = open()
    const { owner } = ownerOf()
    const ada = token('ada')
    const handleIn = (transaction?: string) => subjects.add(owner, new Secret(ada), transaction).handle
    const [order, refund, none] = [handleIn('order-1'), handleIn('refund-2'), handleIn()]
    expect(new Set([order, refund, none]).size).toBe(3)
    expect(handleIn('order-1')).toBe(order)
    const found = [order, refund, none].map((handle) => subjects.find(owner, handle ?? ''))
    expect(found.map(({ claims }) => claims?.txn)).toEqual(['order-1', 'refund-2', ''])
    expect(found.map(({ token: kept }) => kept.reveal())).toEqual([ada, ada, ada])
    expect([subjects.end({}), subjects.count]).toEqual([3, 0])
  })

  it('of another workload, another instance or nobody is unknown, in the same words', () => {
    const { subjects, token } = open()
    const one = ownerOf()
    const { handle } = add(subjects, one, token('ada'))
    const sibling = { ...one.owner, spiffeId: 'spiffe://example.org/batch' }
    const asks = [
      () => subjects.find(ownerOf().owner, handle),
      () => subjects.find(sibling, handle),
      () => subjects.find(one.owner, 'A'.repeat(43)),
      () => subjects.find(one.owner, hashOf(handle)),
      () => subjects.find(one.owner, ''),
    ]
    const heard = asks.map((ask) => {
      try {
        return ask()
      } catch (error) {
        return JSON.stringify(error)
      }
    })
    expect(new Set(heard).size).toBe(1)
    expect(heard[0]).toContain('"subject_unknown"')
  })

  it('ends with the token, and what hangs on it hears of it', () => {
    const { subjects, token, clock, now } = open()
    const one = ownerOf()
    const { handle, subject } = add(subjects, one, token('ada', now + 60))
    clock.advance(59_000)
    expect([reasonOf(() => subjects.find(one.owner, handle)), subject.signal.aborted]).toEqual([
      'none',
      false,
    ])
    clock.advance(1_000)
    expect(reasonOf(() => subjects.find(one.owner, handle))).toBe('subject_unknown')
    expect([subject.signal.aborted, subjects.count]).toEqual([true, 0])
  })

  it('ends with the lease, and leaves nothing behind', () => {
    const { subjects, token } = open()
    const [one, other] = [ownerOf(), ownerOf()]
    const kept = add(subjects, other, token('bob'))
    const ended = [add(subjects, one, token('ada')), add(subjects, one, token('bob'))]
    one.end()
    expect(ended.map(({ subject }) => subject.signal.aborted)).toEqual([true, true])
    expect([subjects.count, kept.subject.signal.aborted]).toEqual([1, false])
    expect(reasonOf(() => add(subjects, one, token('ada')))).toBe('lease_ended')
  })

  it('ends with the revocation of its identity', () => {
    const { subjects, token } = open()
    const [web, batch] = [ownerOf('web'), ownerOf('batch')]
    add(subjects, web, token('ada'))
    const { handle } = add(subjects, batch, token('ada'))
    expect(subjects.end({ spiffeId: web.owner.spiffeId })).toBe(1)
    expect(reasonOf(() => subjects.find(batch.owner, handle))).toBe('none')
    expect(subjects.end({})).toBe(1)
  })

  it('is refused beyond the limit of its owner and of all, and never displaces another', () => {
    const { subjects, token } = open(3, 6)
    const [one, other] = [ownerOf(), ownerOf('batch')]
    const zero = token('0')
    const first = add(subjects, one, zero)
    for (const sub of ['1', '2']) add(subjects, one, token(sub))
    expect(reasonOf(() => add(subjects, one, token('3')))).toBe('rate_limited')
    for (const sub of ['0', '1']) add(subjects, other, token(sub))
    expect(reasonOf(() => add(subjects, other, token('2')))).toBe('overloaded')
    expect(reasonOf(() => subjects.find(one.owner, first.handle))).toBe('none')
    expect(add(subjects, one, zero).handle).toBe(first.handle)
  })

  it('is refused to an identity that holds as much as is left for others, in however many instances', () => {
    const { subjects, token } = open(3, 8)
    for (let at = 0; at < 4; at += 1) add(subjects, ownerOf(), token('ada'))
    expect(reasonOf(() => add(subjects, ownerOf(), token('ada')))).toBe('overloaded')
    const batch = ownerOf('batch')
    expect(reasonOf(() => add(subjects, batch, token('ada')))).toBe('none')
    subjects.end({ spiffeId: ownerOf().owner.spiffeId })
    expect(reasonOf(() => add(subjects, ownerOf(), token('ada')))).toBe('none')
  })

  it('of a token that does not say when it ends lives for five minutes, and none for more than a day', () => {
    const { subjects, now, token } = open()
    const one = ownerOf()
    expect(add(subjects, one, 'opaque').expires).toBe(now + 300)
    expect(add(subjects, one, jwt({ sub: 'ada' })).expires).toBe(now + 300)
    expect(add(subjects, one, token('ada', now + 1e9)).expires).toBe(now + 86_400)
  })

  it('is given for no token that has ended', () => {
    const { subjects, now, token } = open()
    expect(reasonOf(() => add(subjects, ownerOf(), token('ada', now)))).toBe('token_expired')
    expect(subjects.count).toBe(0)
  })
})

describe('what is read of a subject token', () => {
  it('is its issuer, subject, audience, actors from the newest on, and transaction', () => {
    const act = { sub: 'gateway', act: { iss: 'x', act: { sub: 'browser' } } }
    const claims = { iss: HOME, sub: 'ada', aud: ['a', 7], act, txn: 't-1', exp: 5 }
    expect(readSubject(jwt(claims))).toEqual({
      issuer: HOME,
      subject: 'ada',
      audience: ['a', ''],
      actors: ['gateway', '', 'browser'],
      txn: 't-1',
      expires: 5,
    })
    expect(readSubject(jwt({ aud: 'a' }))).toMatchObject({ audience: ['a'], subject: '', issuer: undefined })
    expect(readSubject(jwt({ sub: 7, txn: {}, act: 'x', iss: [HOME], exp: '9' }))).toEqual({
      issuer: undefined,
      subject: '',
      audience: undefined,
      actors: [''],
      txn: '',
      expires: undefined,
    })
  })

  it('is nothing of an opaque one', () => {
    expect([readSubject('opaque'), readSubject('a.b.c'), readSubject('a.b.c.d.e')]).toEqual([
      undefined,
      undefined,
      undefined,
    ])
  })

  it.each([
    ['with a member twice', () => signToken({ alg: 'ES256' }, '{"iss":"https://a","iss":"https://b"}', key)],
    ['with padding', () => jwt({ iss: HOME }).replace(/\.([^.]+)$/, '=.$1')],
    ['with a signature that is none', () => jwt({ iss: HOME }).replace(/\.[^.]+$/, '.!')],
    ['whose payload is a list', () => signToken({ alg: 'ES256' }, '[]', key)],
    [
      'whose actors have no end',
      () =>
        jwt({
          act: Array(40)
            .fill(0)
            .reduce((act) => ({ act }), {}),
        }),
    ],
  ])('is refused of a JWT %s: somebody else might read it', (_what, make) => {
    expect(reasonOf(() => readSubject(make()))).toBe('token_malformed')
  })
})

describe('a subject token', () => {
  const entry = entryNamed('web', ['unix:uid:1000'])
  const server: Server = {
    issuer: AS,
    tokenEndpoint: undefined,
    client: { method: 'tls_client_auth', clientId: 'orders-client' },
  }
  const rule: ExchangeRule = {
    subjects: [HOME],
    audiences: ['https://web.example.org'],
    isRequired: true,
    subjectType: 'access_token',
    hasActor: false,
    via: undefined,
  }

  function refused(token: string, over: Partial<ExchangeRule> = {}): string {
    const { subjects } = open()
    const { subject } = add(subjects, ownerOf(), token)
    return reasonOf(() => checkSubject(subject, { rule: { ...rule, ...over }, server, entry }))
  }

  it.each<[string, string, Partial<ExchangeRule>, string]>([
    ['of a listed issuer', jwt({ iss: HOME }), {}, 'none'],
    ['of another issuer', jwt({ iss: AS }), {}, 'subject_refused'],
    ['of an issuer with a slash more', jwt({ iss: `${HOME}/` }), {}, 'subject_refused'],
    ['without issuer', jwt({ sub: 'ada' }), {}, 'subject_refused'],
    ['for the SPIFFE ID', jwt({ iss: HOME, aud: entry.spiffeId }), {}, 'none'],
    ['for the client', jwt({ iss: HOME, aud: ['x', 'orders-client'] }), {}, 'none'],
    ['for the server that exchanges', jwt({ iss: HOME, aud: AS }), {}, 'none'],
    ['for a listed audience', jwt({ iss: HOME, aud: 'https://web.example.org' }), {}, 'none'],
    ['for somebody else', jwt({ iss: HOME, aud: 'https://other.example.org' }), {}, 'subject_refused'],
    ['for nobody', jwt({ iss: HOME, aud: [] }), {}, 'subject_refused'],
    ['for a number', jwt({ iss: HOME, aud: 7 }), {}, 'subject_refused'],
    ['that is opaque', 'opaque', {}, 'subject_refused'],
    ['that is opaque, of the server that exchanges', 'opaque', { subjects: [AS] }, 'none'],
    ['that is opaque where JWTs are', 'opaque', { subjects: [AS], subjectType: 'jwt' }, 'subject_refused'],
  ])('%s is taken or not', (_what, token, over, expected) => {
    expect(refused(token, over)).toBe(expected)
  })

  const ask = (exchange: ExchangeRule | undefined, token?: string) => {
    const identity = { exchange } as TargetIdentity
    const target = { name: 'orders' } as Target
    const subject = token === undefined ? undefined : add(open().subjects, ownerOf(), token).subject
    return { entry, identity, target, subject }
  }

  it('is demanded where policy says so, and elsewhere the own token does', () => {
    expect(reasonOf(() => exchangedFor(ask(rule), server))).toBe('subject_required')
    expect(exchangedFor(ask({ ...rule, isRequired: false }), server)).toBeUndefined()
    expect(exchangedFor(ask(undefined, jwt({ iss: HOME })), server)).toBeUndefined()
    expect(exchangedFor(ask(rule, jwt({ iss: HOME })), server)).toBeDefined()
  })

  it('is for the first of two servers where they are chained', () => {
    const via = { ...server, issuer: HOME }
    const chained = { ...rule, via }
    expect(reasonOf(() => exchangedFor(ask(chained, jwt({ iss: HOME, aud: AS })), server))).toBe(
      'subject_refused',
    )
    expect(exchangedFor(ask(chained, jwt({ iss: HOME, aud: HOME })), server)).toBeDefined()
  })
})
