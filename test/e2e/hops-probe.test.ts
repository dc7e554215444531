/**
 * The replay lab, as built, against the chain: all is refused on the good one, and on each broken variant what a thief
 * gets in with is named, with who has to act.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseJws } from '../../src/spiffe/jws.ts'
import { ROOT } from '../support/built-agent.ts'
import { type Chain, openChain, type Variant } from '../support/hops-chain.ts'
import { hasNginx } from '../support/nginx.ts'
import { type Ran, ranOf } from '../support/probe-report.ts'
import { hasRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

const CACHE = 'proxy_cache answers; proxy_cache_key $request_uri; proxy_cache_valid 200 1m;'

/** B asks for proofs itself, but for what the gateway sends on. */
const TRUSTING = { route: 'open', isGatewayTrusted: true } as const

const VARIANTS = {
  good: {},
  nonces: { route: 'nonces' },
  drops: { ...TRUSTING, gateway: 'proxy_set_header DPoP "";', flaws: ['drops_proof'] },
  downgrades: {
    ...TRUSTING,
    gateway: 'proxy_set_header DPoP ""; proxy_set_header Authorization $as_bearer;',
    flaws: ['takes_bearer'],
  },
  caches: { gateway: CACHE },
  forwardedHost: { flaws: ['trusts_forwarded_host'] },
  identityHeader: { flaws: ['believes_user'] },
  spread: { isSpread: true },
  skipsAth: { flaws: ['skips_ath'] },
  cookie: { flaws: ['cookie'] },
  longLife: { route: 'lax' },
  notRevoked: { flaws: ['no_revocation'] },
  forwards: { forwards: true },
} as const satisfies Readonly<Record<string, Variant>>

type Name = keyof typeof VARIANTS

let chain: Chain<Name>
/** The same without a flaw, its two nodes on one Redis server. */
let shared: Chain<'good'>

beforeAll(async () => {
  if (!hasNginx) throw new Error('nginx is missing: install it (Debian: nginx-light), or run .ci/tools')
  if (!hasRedis) throw new Error('redis-server is missing: install it, or run .ci/tools')
  chain = await openChain(VARIANTS)
  shared = await openChain({ good: { isSpread: true } }, 'redis')
  await Promise.all([chain, shared].map(keepExpired))
}, 120_000)
afterAll(async () => {
  await chain?.[Symbol.asyncDispose]()
  await shared?.[Symbol.asyncDispose]()
})

/** A token that has ended, in the file `expired`. */
async function keepExpired({ file, key, token }: Probed): Promise<void> {
  const short = await token(key, 'short')
  file('expired', short)
  const end = Number(parseJws(short)?.payload['exp'])
  await until('the short token to be over', () => Date.now() / 1000 > end + 2)
}

type Probed = Chain<Name> | Chain<'good'>

/** `holdfast probe` as an operator runs it, with tokens for service B from files. */
async function probe(
  url: string,
  more: readonly string[] = [],
  of: Probed = chain,
  pace: readonly string[] = ['--quick'],
): Promise<Ran> {
  return runProbe(url, of, [...pace, ...(await filesOf(of)), ...more])
}

async function filesOf(of: Probed): Promise<readonly string[]> {
  return [
    ['--token-file', of.file('token', await of.token(of.key))],
    ['--key-file', of.keyFile],
    ['--expired-file', join(of.dir, 'expired')],
    ['--revoked-file', of.file('revoked', of.revoked)],
    ['--other-audience-file', of.file('other', await of.token(of.key, 'stock'))],
  ].flat()
}

async function runProbe(url: string, of: Probed, more: readonly string[]): Promise<Ran> {
  const fixed = ['--ca', join(of.dir, 'ca.pem'), '--rate', '100', '-o', 'json']
  const args = ['dist/holdfast.js', 'probe', url, ...fixed, ...more]
  const { code, stdout } = await new Promise<{ code: number; stdout: string }>((resolve) => {
    const child = execFile(process.execPath, args, { cwd: ROOT, timeout: 50_000 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout: stdout === '' ? stderr : stdout }),
    )
  })
  return ranOf(code, stdout)
}

const UNTRIED = ['passed_on untried', 'query_swapped uncovered', 'late_replay untried', 'old_nonce untried']

describe('holdfast probe at the good chain', () => {
  it('finds everything refused through the gateway, and straight at the service', async () => {
    const { url, behind } = chain.ways.good
    const { code, open, report } = await probe(url, [
      '--behind',
      behind,
      '--audit',
      `b=${chain.nodes[1].adminSocket}`,
    ])
    expect(report.inconclusive).toBeUndefined()
    expect(open).toEqual([...UNTRIED.slice(0, 2), 'behind/replay untried', ...UNTRIED.slice(2)])
    const told = report.results.filter(({ evidence }) => evidence === 'seen')
    expect(told.length).toBeGreaterThan(20)
    expect(new Set(told.map(({ verifier }) => verifier))).toEqual(new Set(['b']))
    expect(code).toBe(0)
  })

  it('finds everything refused at two nodes that share a Redis server', async () => {
    const [near, far] = shared.nodes.slice(1).map(({ dir }) => join(dir, 'private', 'audit.jsonl'))
    const audits = ['--audit', `near=${near}`, '--audit', `far=${far}`]
    const { code, open, report } = await probe(shared.ways.good.url, audits, shared)
    expect([report.inconclusive, open, code]).toEqual([undefined, UNTRIED, 0])
    const told = report.results.filter(({ evidence }) => evidence === 'seen')
    expect(new Set(told.map(({ verifier }) => verifier))).toEqual(new Set(['near', 'far']))
  })

  it('finds old proofs and nonces refused where each proof needs a nonce', async () => {
    // The nodes give nonces that are good for 10 s at most: one of them is really over.
    const slow = ['--late', '2s', '--nonce-life', '10s', '--patience', '12s']
    const audits = chain.nodes.slice(1).flatMap(({ adminSocket }, at) => ['--audit', `b${at}=${adminSocket}`])
    const { code, open, report } = await probe(chain.ways.nonces.url, [...slow, ...audits], chain, [])
    expect([report.inconclusive, open, code]).toEqual([undefined, UNTRIED.slice(0, 2), 0])
    const old = report.results.find(({ id }) => id === 'old_nonce')
    expect([old?.verdict, old?.evidence, old?.note]).toEqual(['held', 'seen', undefined])
  })

  it('finds everything refused with tokens of the agent, and revokes one of them at every node', async () => {
    const from = ['--quick', '--target', 'orders', '--dir', shared.nodes[0].dir]
    const { code, open, report } = await runProbe(shared.ways.good.url, shared, from)
    const missing = ['late_replay untried', 'old_nonce untried', 'expired untried']
    expect([report.inconclusive, open, code]).toEqual([
      undefined,
      ['other_audience untried', 'passed_on untried', 'query_swapped uncovered', ...missing],
      0,
    ])
    expect(report.results.find(({ id }) => id === 'revoked')?.verdict).toBe('held')
  })

  it('finds everything refused where the gateway itself asks', async () => {
    const { code, open, report } = await probe(chain.ways.good.guarded)
    expect([report.inconclusive, open, code]).toEqual([undefined, UNTRIED, 0])
  })
})

/** Where no proof is looked at. */
const UNPROVED = [
  'replay',
  'other_method',
  'other_url',
  'wrong_ath',
  'other_key',
  'forged_proof',
  'alg_none',
  'private_jwk',
  'future_iat',
  'past_iat',
  'two_proofs',
  'no_proof',
  'forwarded_host',
]
const unproved = [
  ...UNPROVED.map((id) => `${id}: platform`),
  // Whoever lets in a request whose proof is missing does not hear what else is wrong with it.
  'revoked: security',
]

describe('holdfast probe at a broken chain', () => {
  it.each<readonly [what: string, variant: Name, wanted: readonly string[]]>([
    ['the gateway drops the proof', 'drops', unproved],
    ['the gateway makes a bearer token of it', 'downgrades', unproved],
    ["the gateway's cache answers others", 'caches', ['shared_cache: platform']],
    ['the service trusts X-Forwarded-Host', 'forwardedHost', ['forwarded_host: application']],
    ['the service believes a user by header', 'identityHeader', ['behind/forged_user: application']],
    ['each node has a replay store of its own', 'spread', ['replay: application']],
    ['the verifier skips ath', 'skipsAth', ['wrong_ath: application']],
    ['a session cookie replaces the proof', 'cookie', ['cookie: application']],
    ['revocation is not wired', 'notRevoked', ['revoked: security']],
  ])('finds that %s', async (_what, variant, wanted) => {
    const { url, behind } = chain.ways[variant]
    const { code, broken } = await probe(url, ['--behind', behind])
    expect(broken).toEqual(wanted)
    expect(code).toBe(1)
  })

  it('finds tokens that live long', async () => {
    const token = chain.file('long', await chain.token(chain.key, 'long'))
    const { code, broken } = await probe(chain.ways.longLife.url, ['--token-file', token])
    expect([broken, code]).toEqual([['long_life: identity'], 1])
  })

  it('finds at B that it sends the token of its caller on, which C is told by none else', async () => {
    const stock = [`stock=${chain.nodes[1].adminSocket}#stock`]
    const probed = async (name: Name) => {
      const through = chain.ways[name].url.replace(/items$/, 'through')
      return probe(through, ['--downstream-audit', ...stock])
    }
    const { broken, code, report } = await probed('forwards')
    expect([broken, code]).toEqual([['passed_on: application'], 1])
    const found = report.results.find((each) => each.case === 'passed_on')
    expect([found?.seen, found?.cure]).toEqual([
      'its token was shown to stock',
      expect.stringContaining('exchange'),
    ])
    const good = await probed('good')
    expect(good.report.results.find((each) => each.case === 'passed_on')?.seen).toBe(
      'services further on saw other tokens',
    )
    expect([good.broken, good.code]).toEqual([[], 0])
  })

  it('finds at C that it takes what was meant for B', async () => {
    const tokens = [
      ['--token-file', chain.file('for-c', await chain.token(chain.key, 'stock'))],
      ['--other-audience-file', chain.file('for-b', await chain.token(chain.key))],
    ].flat()
    const good = await probe(`${chain.stock.origin}/v1/items`, tokens)
    expect(good.broken).toEqual([])
    const { broken, code } = await probe(`${chain.careless.origin}/v1/items`, tokens)
    expect(broken).toContain('other_audience: application')
    expect(code).toBe(1)
  })
})
