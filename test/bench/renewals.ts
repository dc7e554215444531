/** Tokens that were all had at once, as after a restart: when they are renewed, in fake time. */
import { setImmediate as turn } from 'node:timers/promises'
import { nowSeconds } from '../../src/base/clock.ts'
import { Live } from '../../src/base/live.ts'
import { Secret } from '../../src/base/secret.ts'
import { TokenCache } from '../../src/egress/token-cache.ts'
import { Vault } from '../../src/keys/vault.ts'
import type { RuleBook } from '../../src/policy/book.ts'
import { purposeOf } from '../../src/sign/sign.ts'
import { ManualClock } from '../support/clock.ts'
import { makeWorkload, privateKeyJwt, serverAt, targetOf } from '../support/token-rig.ts'
import type { Measured } from './figures.ts'
import { TARGETS } from './upstreams.ts'

const WORKLOADS = 1_000
const LIFE = 300
const SECOND = 1_000

export async function measureRenewals(): Promise<readonly Measured[]> {
  const clock = new ManualClock()
  const vault = new Vault({ clock, rotation: 86_400 })
  /** Requests by the second in which they were made. */
  const seconds: number[] = []
  let second = 0
  const cache = new TokenCache({
    requests: {
      request: ({ signer }) => {
        seconds[second] = (seconds[second] ?? 0) + 1
        const expires = nowSeconds(clock) + LIFE
        return Promise.resolve({ token: new Secret('token'), jkt: signer.jkt, expires })
      },
    },
    revoker: { add: () => {}, stop: () => {}, settled: () => Promise.resolve() },
    vault,
    book: new Live({ hash: '0' } as RuleBook),
    clock,
    renewBefore: 60,
    limit: 20_000,
    onToken: () => {},
  })
  const server = serverAt('https://login.example.org', privateKeyJwt('shop'))
  const asks = Array.from({ length: WORKLOADS }, () => makeWorkload()).flatMap(({ workload, entry }) =>
    TARGETS.map((name) => {
      const target = targetOf(server, {}, { name })
      const owner = { spiffeId: entry.spiffeId, instance: workload.instanceOf(entry) }
      return { workload, entry, target, server, signer: vault.signerFor(owner, purposeOf(target), LIFE) }
    }),
  )
  const useAll = () => Promise.all(asks.map((ask) => cache.get(ask, new AbortController().signal)))
  await useAll()
  // Used on, so that each is renewed, and only once.
  for (second = 1; second < LIFE; second++) {
    if (second === LIFE / 2) await useAll()
    clock.advance(SECOND)
    await turn()
  }
  cache.stop()
  vault.stop()
  const counts = seconds.slice(1).filter((count) => count > 0)
  const all = counts.reduce((sum, count) => sum + count, 0)
  if (all !== asks.length) throw new Error(`${all} renewals of ${asks.length} tokens`)
  const note = `over ${counts.length} s`
  return [{ name: 'tokens_renewal_peak_ratio', value: Math.max(...counts) / all, note }]
}
