/** What a request has to pass beside policy: budgets, a person, the hook, rate and concurrency. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { Live } from '../../../src/base/live.ts'
import { decideTarget } from '../../../src/policy/decide.ts'
import { Admission, type Call, type Waits } from '../../../src/sign/admission.ts'
import { Approvals, WAITING_LIMIT, WAITING_PER_INSTANCE } from '../../../src/sign/approvals.ts'
import { Hook, type HookPost } from '../../../src/sign/hook.ts'
import { Rates } from '../../../src/sign/rate.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'
import { callOf } from '../../support/calls.ts'
import { ManualClock } from '../../support/clock.ts'
import { bookOf, LAYERS, question } from '../../support/policy.ts'

const SERVERS =
  'servers:\n  - { name: login, issuer: "https://as.example.org", client: { auth: jwt_spiffe } }\ntargets:'
const EXCHANGE = '    exchange: { subjects: ["https://caller.example.org"], subject: optional }\n'

interface Shop {
  /** More lines of the grant. */
  readonly grant?: string
  readonly platform?: string
  /** More lines of what identity says of the target. */
  readonly identity?: string
  readonly post?: HookPost
  readonly cache?: number
}

async function openShop({ grant = '', platform = '', identity = EXCHANGE, post, cache = 0 }: Shop) {
  const clock = new ManualClock()
  const files = {
    ...LAYERS,
    identity: LAYERS.identity
      .replace('targets:', SERVERS)
      .replace(/server: \{.*\}\n/, `server: login\n${identity}`),
    application: `${LAYERS.application.replace('[GET, HEAD]', '["*"]')}${grant}`,
    platform: LAYERS.platform.replace(' }', `${platform} }`),
  }
  const book = new Live(await bookOf(files))
  const approvals = new Approvals(clock)
  const hook = post && new Hook({ post, clock, timeout: 2_000, cache })
  const admission = new Admission({ book, rates: new Rates(10_000, clock), clock, approvals, hook })
  const look = (call: Call, path: string) => () => {
    const target = book.get().targets.get('orders')
    if (!target) throw new Error('there is no target orders')
    const { method } = call
    const base = question(book.get(), { method, url: `https://orders.example.org${path}` })
    const decision = decideTarget(book.get(), target, { ...base, ...admission.contextOf(call, target) })
    if (!decision.allowed) throw new Fault(decision.reason, decision.message)
    return { target, url: base.url, decision }
  }
  const waits: Waits = { gone: undefined, onEnd: () => {} }
  return {
    book,
    clock,
    approvals,
    reload: async (more: string) =>
      book.set(await bookOf({ ...files, application: files.application + more })),
    admit: async (call: Call, over: Partial<Waits> = {}, path = '/orders/1') =>
      admission.admit(call, { ...waits, ...over }, look(call, path)),
    admitNow: (call: Call, path = '/orders/1') => admission.admitNow(call, look(call, path)),
  }
}

/** A shop whose hook never answers, and how often it was asked. */
async function openSilentShop() {
  let asked = 0
  const post: HookPost = (_body, signal) => {
    asked += 1
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  }
  const shop = await openShop({ grant: '        hook: true\n', post })
  return { shop, asked: () => asked }
}

const reasonOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'ok',
    (caught) => Fault.from(caught).reason,
  )

/** The same call, under another identity. */
const ofOther = <T extends Call>(call: T): T => ({
  ...call,
  entry: { ...call.entry, spiffeId: parseSpiffeId('spiffe://example.org/other') },
})

const alice = { subject: 'alice', actors: ['planner'], txn: 'order-17' }

const when = (condition: string) => `        when: ${JSON.stringify(condition)}\n`

describe('a budget', () => {
  it('counts allowed calls of one instance, and of no other', async () => {
    const shop = await openShop({ grant: when('session_calls < 2') })
    const call = callOf(shop.book.get())
    expect(await reasonOf(shop.admit(call))).toBe('ok')
    expect(await reasonOf(shop.admit(call))).toBe('ok')
    expect(await reasonOf(shop.admit(call))).toBe('policy_denied')
    expect(await reasonOf(shop.admit(callOf(shop.book.get(), 'GET', 2)))).toBe('ok')
  })

  it('is one for doors that wait and doors that do not', async () => {
    const shop = await openShop({ grant: when('session_calls < 2') })
    const call = callOf(shop.book.get())
    shop.admitNow(call)
    await shop.admit(call)
    expect(() => shop.admitNow(call)).toThrow(/does not hold/)
  })

  it('does not count what is refused', async () => {
    const shop = await openShop({ grant: when('session_calls < 1') })
    const call = callOf(shop.book.get())
    for (let at = 0; at < 3; at++)
      expect(await reasonOf(shop.admit(call, {}, '/elsewhere'))).toBe('policy_denied')
    expect(await reasonOf(shop.admit(call))).toBe('ok')
  })

  it('counts as writes what is not GET, HEAD or OPTIONS, and what covers every method', async () => {
    const shop = await openShop({ grant: when('session_writes < 2') })
    const base = callOf(shop.book.get())
    const methods = ['GET', 'HEAD', 'OPTIONS', 'POST', undefined, 'GET']
    const got = await Promise.all(methods.map((method) => reasonOf(shop.admit({ ...base, method }))))
    expect(got).toEqual(['ok', 'ok', 'ok', 'ok', 'ok', 'policy_denied'])
  })

  it('knows the first use of a target and how many were used', async () => {
    const shop = await openShop({ grant: when('first_use && session_targets == 0') })
    const call = callOf(shop.book.get())
    expect(await reasonOf(shop.admit(call))).toBe('ok')
    expect(await reasonOf(shop.admit(call))).toBe('policy_denied')
  })

  it('lets only one of two requests be the last, when both have waited for a person', async () => {
    const shop = await openShop({ grant: `${when('session_calls < 1')}        approval: { on: always }\n` })
    const call = callOf(shop.book.get())
    const both = [reasonOf(shop.admit(call)), reasonOf(shop.admit(call))]
    for (const { id } of shop.approvals.list()) shop.approvals.answer(id, true)
    expect((await Promise.all(both)).sort()).toEqual(['ok', 'policy_denied'])
  })

  it('lets only one of two requests be the last, when both have waited for the hook', async () => {
    const post: HookPost = async () => ({ status: 200, type: 'application/json', text: '{"allow":true}' })
    const shop = await openShop({ grant: `${when('session_calls < 1')}        hook: true\n`, post })
    const call = callOf(shop.book.get())
    const both = await Promise.all([reasonOf(shop.admit(call)), reasonOf(shop.admit(call))])
    expect(both.sort()).toEqual(['ok', 'policy_denied'])
  })
})

describe('a subject', () => {
  it('is seen where its token is exchanged before anything goes out', async () => {
    const shop = await openShop({ grant: when("subject == 'alice' && txn == 'order-17'") })
    const call = callOf(shop.book.get())
    expect(await reasonOf(shop.admit(call))).toBe('policy_denied')
    expect(await reasonOf(shop.admit({ ...call, onBehalf: alice }))).toBe('ok')
  })

  it('is nobody where no server would verify it: the workload may have made it up', async () => {
    const shop = await openShop({ identity: '', grant: when("subject == 'alice'") })
    const call = { ...callOf(shop.book.get()), onBehalf: alice }
    expect(await reasonOf(shop.admit(call))).toBe('policy_denied')
  })
})

describe('approval', () => {
  it('shows what waits: the granted path, never the one that was asked for', async () => {
    const shop = await openShop({ grant: '        approval: { wait: 30s }\n' })
    const waiting = shop.admit(callOf(shop.book.get(), 'SECRET'), {}, '/orders/secret?token=secret')
    expect(shop.approvals.list()).toEqual([
      {
        id: expect.stringMatching(/^[0-9a-f]{12}$/),
        spiffe_id: 'spiffe://example.org/web',
        pid: 1,
        method: 'other',
        target: 'orders',
        path: '/orders/**',
        on: 'first_use',
        since: 1_700_000_000,
        deadline: 1_700_000_030,
      },
    ])
    shop.clock.advance(30_000)
    expect(await reasonOf(waiting)).toBe('approval_refused')
    expect(shop.approvals.list()).toEqual([])
  })

  it('of a first use covers what waits for it and what comes later, of this instance alone', async () => {
    const shop = await openShop({ grant: '        approval: {}\n' })
    const call = callOf(shop.book.get())
    const both = [reasonOf(shop.admit(call)), reasonOf(shop.admit(call))]
    expect(shop.approvals.answer(shop.approvals.list()[0]?.id ?? '', true)).toBe(2)
    expect(await Promise.all(both)).toEqual(['ok', 'ok'])
    expect(await reasonOf(shop.admit(call))).toBe('ok')
    shop.admitNow(call)
    expect(() => shop.admitNow(callOf(shop.book.get(), 'GET', 2))).toThrow(/cannot wait/)
  })

  it('is asked each time where the grant says always, at once or never', async () => {
    const shop = await openShop({ grant: '        approval: { on: always }\n' })
    const call = callOf(shop.book.get())
    for (let at = 0; at < 2; at++) {
      const waiting = reasonOf(shop.admit(call))
      shop.approvals.answer(shop.approvals.list()[0]?.id ?? '', true)
      expect(await waiting).toBe('ok')
      expect(() => shop.admitNow(call)).toThrow(/a person has to agree .* cannot wait/)
    }
  })

  it('that is denied refuses, and the next request asks again', async () => {
    const shop = await openShop({ grant: '        approval: {}\n' })
    const call = callOf(shop.book.get())
    const waiting = reasonOf(shop.admit(call))
    shop.approvals.answer(shop.approvals.list()[0]?.id ?? '', false)
    expect(await waiting).toBe('approval_refused')
    const next = reasonOf(shop.admit(call))
    expect(shop.approvals.list()).toHaveLength(1)
    call.end(new Fault('lease_ended'))
    expect(await next).toBe('lease_ended')
    expect(shop.approvals.list()).toEqual([])
  })

  it('is not waited for by a caller that has gone', async () => {
    const shop = await openShop({ grant: '        approval: {}\n' })
    const gone = new AbortController()
    const waiting = reasonOf(shop.admit(callOf(shop.book.get()), { gone: gone.signal }))
    gone.abort()
    expect(await waiting).toBe('canceled')
    expect(shop.approvals.list()).toEqual([])
  })

  it('is asked for anew when policy has changed meanwhile', async () => {
    const shop = await openShop({ grant: '        approval: { on: always }\n' })
    const waiting = reasonOf(shop.admit(callOf(shop.book.get())))
    await shop.reload('        hook: false\n')
    const [first] = shop.approvals.list()
    shop.approvals.answer(first?.id ?? '', true)
    await Promise.resolve()
    await new Promise(setImmediate)
    expect(shop.approvals.list()).toHaveLength(1)
    shop.approvals.answer(shop.approvals.list()[0]?.id ?? '', true)
    expect(await waiting).toBe('ok')
  })

  it('keeps a bounded number of requests of one instance waiting', async () => {
    const shop = await openShop({ grant: '        approval: {}\n' })
    const call = callOf(shop.book.get())
    const waiting = Array.from({ length: WAITING_PER_INSTANCE }, () => reasonOf(shop.admit(call)))
    expect(await reasonOf(shop.admit(call))).toBe('target_busy')
    const other = reasonOf(shop.admit(callOf(shop.book.get(), 'GET', 2)))
    expect(shop.approvals.count).toBe(WAITING_PER_INSTANCE + 1)
    shop.clock.advance(60_000)
    expect(new Set(await Promise.all([...waiting, other]))).toEqual(new Set(['approval_refused']))
  })

  it('has room for others, however many instances of one identity wait', async () => {
    const shop = await openShop({ grant: '        approval: {}\n' })
    const book = shop.book.get()
    const waiting: Promise<string>[] = []
    for (let at = 0; at < WAITING_LIMIT / 2; at += 1)
      waiting.push(reasonOf(shop.admit(callOf(book, 'GET', at + 1))))
    const next = () => reasonOf(shop.admit(callOf(book, 'GET', 1_000_000)))
    expect(await next()).toBe('overloaded')
    const other = reasonOf(shop.admit(ofOther(callOf(book, 'GET', 2_000_000))))
    expect(shop.approvals.count).toBe(WAITING_LIMIT / 2 + 1)
    shop.approvals.answer(shop.approvals.list()[0]?.id ?? '', true)
    const late = next()
    shop.clock.advance(60_000)
    const [first, ...rest] = await Promise.all([...waiting, other, late])
    expect([first, new Set(rest)]).toEqual(['ok', new Set(['approval_refused'])])
  })
})

describe('the hook', () => {
  const reply = (text: string): HookPost => {
    return async () => ({ status: 200, type: 'application/json', text })
  }

  it('is told public facts, and no query', async () => {
    const told: string[] = []
    const post: HookPost = async (body) => {
      told.push(body)
      return { status: 200, type: 'application/json', text: '{"allow":true}' }
    }
    const shop = await openShop({ grant: '        hook: true\n', post })
    await shop.admit({ ...callOf(shop.book.get()), onBehalf: alice }, {}, '/orders/7?secret=1')
    expect(JSON.parse(told[0] ?? '')).toEqual({
      spiffe_id: 'spiffe://example.org/web',
      selectors: ['unix:uid:1000', 'systemd:id:web.service'],
      target: 'orders',
      method: 'GET',
      granted_path: '/orders/**',
      path: '/orders/7',
      policy: shop.book.get().hash,
      subject: 'alice',
      actors: ['planner'],
      txn: 'order-17',
      time: 1_700_000_000,
      session: { calls: 0, writes: 0, targets: 0, first_use: true },
    })
  })

  it('refuses as policy does, with its reason cleaned', async () => {
    const shop = await openShop({
      grant: '        hook: true\n',
      post: reply('{"allow":false,"reason":"no\\nway"}'),
    })
    await expect(shop.admit(callOf(shop.book.get()))).rejects.toMatchObject({
      reason: 'policy_denied',
      owner: 'application',
      message: 'the decision hook refuses: no\ufffdway',
    })
  })

  it.each([
    ['no JSON', 'yes'],
    ['a list', '[true]'],
    ['no answer', '{}'],
    ['a word for a truth', '{"allow":"true"}'],
    ['an answer twice', '{"allow":false,"allow":true}'],
    ['more members', '{"allow":true,"until":1}'],
    ['a long reason', `{"allow":false,"reason":"${'a'.repeat(201)}"}`],
    ['a reason that is no text', '{"allow":true,"reason":1}'],
  ])('that answers with %s is not available', async (_what, text) => {
    const shop = await openShop({ grant: '        hook: true\n', post: reply(text) })
    expect(await reasonOf(shop.admit(callOf(shop.book.get())))).toBe('hook_unavailable')
  })

  it.each([
    ['another status', { status: 204, type: 'application/json', text: '{"allow":true}' }],
    ['another type', { status: 200, type: 'text/html', text: '{"allow":true}' }],
  ])('that answers with %s is not available', async (_what, answer) => {
    const shop = await openShop({ grant: '        hook: true\n', post: async () => answer })
    expect(await reasonOf(shop.admit(callOf(shop.book.get())))).toBe('hook_unavailable')
  })

  it('that does not answer in time is not available, nor is one that is not there', async () => {
    const { shop: slow } = await openSilentShop()
    const waiting = reasonOf(slow.admit(callOf(slow.book.get())))
    slow.clock.advance(2_000)
    expect(await waiting).toBe('hook_unavailable')
    const none = await openShop({ grant: '        hook: true\n' })
    expect(await reasonOf(none.admit(callOf(none.book.get())))).toBe('hook_unavailable')
    expect(() => none.admitNow(callOf(none.book.get()))).toThrow(/cannot wait/)
  })

  it('has places left for others, however many questions one workload has open', async () => {
    const { asked, shop } = await openSilentShop()
    const [busy, other] = [callOf(shop.book.get(), 'GET', 1), callOf(shop.book.get(), 'GET', 2)]
    const crowd = Array.from({ length: 300 }, (_, at) => reasonOf(shop.admit(busy, {}, `/orders/${at}`)))
    const last = reasonOf(shop.admit(other))
    expect(asked()).toBe(64 + 1)
    shop.clock.advance(2_000)
    const reasons = await Promise.all([...crowd, last])
    expect(reasons.filter((reason) => reason === 'target_busy')).toHaveLength(300 - 64)
    void reasonOf(shop.admit(busy))
    expect(asked()).toBe(64 + 2)
  })

  it('has places left for others, however many instances of one identity ask', async () => {
    const { asked, shop } = await openSilentShop()
    const book = shop.book.get()
    const crowd = Array.from({ length: 300 }, (_, at) => reasonOf(shop.admit(callOf(book, 'GET', at + 1))))
    expect(asked()).toBe(128)
    const other = reasonOf(shop.admit(ofOther(callOf(book, 'GET', 1_000))))
    expect(asked()).toBe(129)
    shop.clock.advance(2_000)
    expect(new Set(await Promise.all([...crowd, other]))).toEqual(new Set(['hook_unavailable']))
    void reasonOf(shop.admit(callOf(book)))
    expect(asked()).toBe(130)
  })

  it('is asked again for another path, caller or time after its answer has ended', async () => {
    let asked = 0
    const post: HookPost = async () => {
      asked += 1
      return { status: 200, type: 'application/json', text: '{"allow":true}' }
    }
    const shop = await openShop({ grant: '        hook: true\n', post, cache: 5_000 })
    const call = callOf(shop.book.get())
    expect(() => shop.admitNow(call)).toThrow(/cannot wait/)
    await shop.admit(call)
    await shop.admit(call)
    shop.admitNow(call)
    expect(asked).toBe(1)
    await shop.admit(call, {}, '/orders/2')
    await shop.admit({ ...call, onBehalf: alice })
    await shop.admit({ ...call, method: 'POST' })
    expect(asked).toBe(4)
    shop.clock.advance(4_999)
    await shop.admit(call)
    expect(asked).toBe(4)
    shop.clock.advance(1)
    expect(() => shop.admitNow(call)).toThrow(/cannot wait/)
    await shop.admit(call)
    expect(asked).toBe(5)
  })
})

describe('a target', () => {
  it('takes as many requests in a second as platform says, of each instance, at every door', async () => {
    const shop = await openShop({ platform: ', rate: 2' })
    const call = callOf(shop.book.get())
    await shop.admit(call)
    shop.admitNow(call)
    expect(() => shop.admitNow(call)).toThrow(/over 2 requests a second/)
    expect(await reasonOf(shop.admit(call))).toBe('rate_limited')
    await shop.admit(callOf(shop.book.get(), 'GET', 2))
    shop.clock.advance(500)
    await shop.admit(call)
  })

  it('has as many requests of one instance open as platform says', async () => {
    const shop = await openShop({ platform: ', concurrency: 2' })
    const call = callOf(shop.book.get())
    const leaves: (() => void)[] = []
    const onEnd = (leave: () => void) => leaves.push(leave)
    await shop.admit(call, { onEnd })
    await shop.admit(call, { onEnd })
    expect(await reasonOf(shop.admit(call, { onEnd }))).toBe('target_busy')
    expect(await reasonOf(shop.admit(callOf(shop.book.get(), 'GET', 2)))).toBe('ok')
    leaves[0]?.()
    leaves[0]?.()
    expect(await reasonOf(shop.admit(call, { onEnd }))).toBe('ok')
    expect(await reasonOf(shop.admit(call, { onEnd }))).toBe('target_busy')
  })
})
