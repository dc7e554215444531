/**
 * The replay lab, as built, against the chain: all is refused on the good one, and on each broken variant what a thief
 * gets in with is named, with who has to act.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ProbeReport } from '../../src/probe/run.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { ROOT } from '../support/built-agent.ts'
import { type Chain, openChain, type Variant } from '../support/hops-chain.ts'
import { get, headersFor } from '../support/keyed-caller.ts'
import { hasNginx } from '../support/nginx.ts'
import { hasRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

const CACHE = 'proxy_cache answers; proxy_cache_key $request_uri; proxy_cache_valid 200 1m;'

/** B asks for proofs itself, but for what the gateway sends on. */
const TRUSTING = { route: 'open', isGatewayTrusted: true } as const

const VARIANTS = {
  good: {},
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

interface Ran {
  readonly code: number
  readonly report: ProbeReport
  /** `case: owner` of what was let in. */
  readonly broken: readonly string[]
}

/** `holdfast probe` as an operator runs it, with tokens for service B from files. */
async function probe(url: string, more: readonly string[] = [], of: Probed = chain): Promise<Ran> {
  return runProbe(url, of, [...(await filesOf(of)), ...more])
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
  const fixed = ['--ca', join(of.dir, 'ca.pem'), '--rate', '100', '--quick', '-o', 'json']
  const args = ['dist/holdfast.js', 'probe', url, ...fixed, ...more]
  const { code, stdout } = await new Promise<{ code: number; stdout: string }>((resolve) => {
    const child = execFile(process.execPath, args, { cwd: ROOT, timeout: 50_000 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout: stdout === '' ? stderr : stdout }),
    )
  })
  if (!stdout.startsWith('{')) throw new Error(`the probe says ${stdout}`)
  const report = JSON.parse(stdout) as ProbeReport
  return { code, report, broken: brokenIn(report) }
}

function brokenIn({ results }: ProbeReport): readonly string[] {
  return results.filter(({ verdict }) => verdict === 'broken').map(({ id, owner }) => `${id}: ${owner}`)
}

/** What was not refused, but for what the lab does not try here. */
const openIn = ({ results }: ProbeReport) =>
  results.filter(({ verdict }) => verdict !== 'held').map(({ id, verdict }) => `${id} ${verdict}`)

const UNTRIED = ['query_swapped uncovered', 'late_replay untried', 'old_nonce untried']

describe('holdfast probe at the good chain', () => {
  it('finds everything refused through the gateway, and straight at the service', async () => {
    const { url, behind } = chain.ways.good
    const audit = join(chain.nodes[1].dir, 'private', 'audit.jsonl')
    const { code, report } = await probe(url, ['--behind', behind, '--audit', audit])
    expect(report.inconclusive).toBeUndefined()
    expect(openIn(report)).toEqual([UNTRIED[0], 'behind/replay untried', ...UNTRIED.slice(1)])
    expect(report.results.filter(({ evidence }) => evidence === 'seen').length).toBeGreaterThan(10)
    expect(code).toBe(0)
  })

  it('finds everything refused at two nodes that share a Redis server', async () => {
    const { code, report } = await probe(shared.ways.good.url, [], shared)
    expect([report.inconclusive, openIn(report), code]).toEqual([undefined, UNTRIED, 0])
  })

  it('finds everything refused with tokens of the agent, and revokes one of them at every node', async () => {
    const from = ['--target', 'orders', '--dir', shared.nodes[0].dir]
    const { code, report } = await runProbe(shared.ways.good.url, shared, from)
    const missing = ['late_replay untried', 'old_nonce untried', 'expired untried']
    expect([report.inconclusive, openIn(report), code]).toEqual([
      undefined,
      ['other_audience untried', 'query_swapped uncovered', ...missing],
      0,
    ])
    expect(report.results.find(({ id }) => id === 'revoked')?.verdict).toBe('held')
  })

  it('finds everything refused where the gateway itself asks', async () => {
    const { code, report } = await probe(chain.ways.good.guarded)
    expect([report.inconclusive, openIn(report), code]).toEqual([undefined, UNTRIED, 0])
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
/** Of these, what the service behind was seen to refuse: so it is the gateway that opens it. */
const REFUSED_BEHIND = new Set(['replay', 'other_key', 'no_proof'])
const unproved = [
  ...UNPROVED.map((id) => `${id}: ${REFUSED_BEHIND.has(id) ? 'platform' : 'application'}`),
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

  it('finds that C takes what was meant for B, which B sends on', async () => {
    const { url } = chain.ways.forwards
    const through = url.replace(/items$/, 'through')
    const headers = headersFor(chain.key, await chain.token(chain.key), through)
    expect(await get(through, headers, chain.ca.pem)).toBe(200)
    // The very token of the caller came to C, which let it in though it was meant for B and proved for B.
    expect(chain.careless.refused).toEqual(['token_audience'])
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
