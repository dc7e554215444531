import { describe, expect, it } from 'vitest'
import { type KeyChange, type KeyOwner, Vault } from '../../../src/keys/vault.ts'
import { thumbprint } from '../../../src/spiffe/jwk.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'

const ROTATION = 3600
const CEILING = 600

function setUp(options: { readonly limit?: number } = {}) {
  const clock = new ManualClock()
  const vault = new Vault({ clock, rotation: ROTATION, ...options })
  const aborts = new Map<string, AbortController>()
  const owner = (spiffeId: string, instance = 'process/1'): KeyOwner => {
    const abort = aborts.get(instance) ?? new AbortController()
    aborts.set(instance, abort)
    return { spiffeId, instance: { key: instance, signal: abort.signal } }
  }
  const end = (instance = 'process/1') => aborts.get(instance)?.abort()
  return { clock, vault, owner, end, seconds: (count: number) => clock.advance(count * 1000) }
}

const WEB = 'spiffe://example.org/web'
const DB = 'spiffe://example.org/db'
const input = Buffer.from('input')

describe('a key', () => {
  it('is made on first use and stays the same for one owner and purpose', () => {
    const { vault, owner } = setUp()
    const signer = vault.signerFor(owner(WEB), 'dpop:a', CEILING)
    expect(vault.signerFor(owner(WEB), 'dpop:a', CEILING)).toBe(signer)
    expect(signer.jkt).toBe(thumbprint(signer.publicJwk))
    expect(vault.count).toBe(1)
  })

  it('is another one for another purpose, identity or instance', () => {
    const { vault, owner } = setUp()
    const owners = [owner(WEB), owner(DB), owner(WEB, 'process/2')]
    const keys = owners.flatMap((who) =>
      ['dpop:a', 'wpt'].map((purpose) => vault.signerFor(who, purpose, CEILING).jkt),
    )
    expect(new Set(keys).size).toBe(6)
  })

  it('has no way out: a signer shows its public half and nothing else', () => {
    const { vault, owner } = setUp()
    const signer = vault.signerFor(owner(WEB), 'wpt', CEILING)
    const shown = JSON.stringify(signer) + Object.keys(signer.publicJwk).join()
    expect(shown).not.toMatch(/"d"|private/i)
    expect(Object.keys(signer.publicJwk)).toEqual(['kty', 'crv', 'x', 'y'])
  })

  it('threats row 20: is found by nobody else, whose lists do not show it either', () => {
    const { vault, owner } = setUp()
    const { jkt } = vault.signerFor(owner(WEB), 'wpt', CEILING)
    expect(vault.find(owner(WEB), jkt)?.signer.jkt).toBe(jkt)
    for (const stranger of [owner(DB), owner(WEB, 'process/2')]) {
      expect(vault.find(stranger, jkt)).toBeUndefined()
      expect(vault.list(stranger)).toEqual([])
    }
    expect(vault.find(owner(WEB), `${jkt}A`)).toBeUndefined()
  })
})

describe('rotation', () => {
  it('replaces a key when it is due, used or not, and tells watchers', () => {
    const { vault, owner, seconds } = setUp()
    const changes: KeyChange[] = []
    vault.watch(owner(WEB), (change) => changes.push(change))
    const first = vault.signerFor(owner(WEB), 'wpt', CEILING)
    seconds(ROTATION - 1)
    expect(vault.signerFor(owner(WEB), 'wpt', CEILING)).toBe(first)
    seconds(1)
    const [, second] = changes
    expect(changes.map(({ change }) => change)).toEqual(['created', 'rotated'])
    expect(second?.key.jkt).not.toBe(first.jkt)
    expect(vault.signerFor(owner(WEB), 'wpt', CEILING).jkt).toBe(second?.key.jkt)
  })

  it('lets a retired key sign for its ceiling and no second longer', () => {
    const { vault, owner, seconds } = setUp()
    const first = vault.signerFor(owner(WEB), 'wpt', CEILING)
    vault.signerFor(owner(WEB), 'wpt', CEILING / 2)
    seconds(ROTATION)
    expect(vault.list(owner(WEB)).map(({ retired }) => retired)).toEqual([1_700_003_600, undefined])
    seconds(CEILING - 1)
    expect(vault.find(owner(WEB), first.jkt)?.facts.retired).toBe(1_700_003_600)
    expect(first.sign(input)).toHaveLength(64)
    seconds(1)
    expect(vault.find(owner(WEB), first.jkt)).toBeUndefined()
    expect(faultOf(() => first.sign(input))).toMatch(/^key_lost: /)
    expect(vault.count).toBe(1)
  })

  it('does not find a retired key that is over before the sweep has come by', () => {
    const { clock, vault, owner, seconds } = setUp()
    const { jkt } = vault.signerFor(owner(WEB), 'wpt', CEILING)
    seconds(ROTATION)
    clock.jump(CEILING * 1000)
    expect(vault.find(owner(WEB), jkt)).toBeUndefined()
    expect(vault.list(owner(WEB)).map((key) => key.jkt)).not.toContain(jkt)
  })

  it('goes on with a key that is due when there is no room for its successor', () => {
    const { vault, owner, seconds } = setUp({ limit: 1 })
    const first = vault.signerFor(owner(WEB), 'wpt', CEILING)
    seconds(ROTATION * 2)
    expect(vault.signerFor(owner(WEB), 'wpt', CEILING)).toBe(first)
    expect(vault.list(owner(WEB))).toHaveLength(1)
  })
})

describe('the end of keys', () => {
  it('comes with the instance: each is gone, watchers hear of it, and no new one is made', () => {
    const { vault, owner, end } = setUp()
    const changes: KeyChange[] = []
    vault.watch(owner(WEB), (change) => changes.push(change))
    const signers = ['wpt', 'dpop:a'].map((purpose) => vault.signerFor(owner(WEB), purpose, CEILING))
    const other = vault.signerFor(owner(WEB, 'process/2'), 'wpt', CEILING)
    end()
    for (const signer of signers) expect(faultOf(() => signer.sign(input))).toMatch(/^key_lost: /)
    expect(changes.slice(2).map(({ change }) => change)).toEqual(['lost', 'lost'])
    expect(faultOf(() => vault.signerFor(owner(WEB), 'wpt', CEILING))).toMatch(/^lease_ended: /)
    expect(other.sign(input)).toHaveLength(64)
    expect(vault.count).toBe(1)
  })

  type Filter = Parameters<Vault['destroy']>[0]
  it.each<[string, Filter, number]>([
    ['one identity', { spiffeId: WEB }, 3],
    ['one instance', { instance: 'process/2' }, 1],
    ['one purpose', { purpose: 'wpt' }, 3],
    ['an identity and a purpose', { spiffeId: WEB, purpose: 'dpop:a' }, 1],
    ['nobody', { spiffeId: 'spiffe://example.org' }, 0],
    ['everyone', {}, 4],
  ])('comes by a filter for %s', (_what, filter, wanted) => {
    const { vault, owner } = setUp()
    vault.signerFor(owner(WEB), 'wpt', CEILING)
    vault.signerFor(owner(WEB), 'dpop:a', CEILING)
    vault.signerFor(owner(WEB, 'process/2'), 'wpt', CEILING)
    vault.signerFor(owner(DB), 'wpt', CEILING)
    expect(vault.destroy(filter)).toBe(wanted)
    expect(vault.count).toBe(4 - wanted)
  })

  it('comes by thumbprint, and the next use makes a new key', () => {
    const { vault, owner } = setUp()
    const signer = vault.signerFor(owner(WEB), 'wpt', CEILING)
    expect(vault.destroy({ jkt: signer.jkt })).toBe(1)
    expect(vault.destroy({ jkt: signer.jkt })).toBe(0)
    expect(faultOf(() => signer.sign(input))).toMatch(/^key_lost: /)
    expect(vault.signerFor(owner(WEB), 'wpt', CEILING).jkt).not.toBe(signer.jkt)
  })

  it('comes to what a policy no longer wants', () => {
    const { vault, owner } = setUp()
    vault.signerFor(owner(WEB), 'wpt', CEILING)
    vault.signerFor(owner(DB), 'wpt', CEILING)
    expect(vault.retain((spiffeId) => spiffeId === DB)).toBe(1)
    expect([vault.countOf(WEB), vault.countOf(DB)]).toEqual([0, 1])
  })

  it('comes to all with a new epoch', () => {
    const { vault, owner } = setUp()
    const { epoch } = vault
    const signer = vault.signerFor(owner(WEB), 'wpt', CEILING)
    vault.replaceAll()
    expect(vault.epoch).not.toBe(epoch)
    expect(vault.count).toBe(0)
    expect(faultOf(() => signer.sign(input))).toMatch(/^key_lost: /)
  })

  it('comes to every key although a watcher throws', () => {
    const { vault, owner } = setUp()
    const signers = ['a', 'b', 'c'].map((purpose) => vault.signerFor(owner(WEB), purpose, CEILING))
    vault.watch(owner(WEB), () => {
      throw new Error('broken watcher')
    })
    expect(() => vault.destroy({})).toThrow('broken watcher')
    for (const signer of signers) expect(faultOf(() => signer.sign(input))).toMatch(/^key_lost: /)
    expect(vault.count).toBe(0)
  })

  it('comes when the agent stops, and the sweep ends', () => {
    const { vault, owner, seconds } = setUp()
    const signer = vault.signerFor(owner(WEB), 'wpt', CEILING)
    vault.stop()
    expect(faultOf(() => signer.sign(input))).toMatch(/^key_lost: /)
    seconds(ROTATION * 3)
    expect(vault.count).toBe(0)
  })

  it('is told to nobody who stopped watching', () => {
    const { vault, owner } = setUp()
    const changes: KeyChange[] = []
    const stop = vault.watch(owner(WEB), (change) => changes.push(change))
    stop()
    vault.signerFor(owner(WEB), 'wpt', CEILING)
    expect(changes).toEqual([])
  })
})

describe('threats row 11: the number of keys is bounded', () => {
  it('over all owners', () => {
    const { vault, owner } = setUp({ limit: 2 })
    vault.signerFor(owner(WEB), 'a', CEILING)
    vault.signerFor(owner(DB), 'a', CEILING)
    const third = () => vault.signerFor(owner('spiffe://example.org/ops'), 'a', CEILING)
    expect(faultOf(third)).toBe('keys_exhausted: 2 keys, the limit of the node')
    vault.destroy({ spiffeId: DB })
    expect(third().alg).toBe('ES256')
  })

  it('for one identity in many instances, which leaves keys for others', () => {
    const { vault, owner } = setUp({ limit: 8 })
    const made = (spiffeId: string, at: number) =>
      vault.signerFor(owner(spiffeId, `process/${at}`), 'a', CEILING)
    for (let at = 0; at < 4; at += 1) made(WEB, at)
    expect(faultOf(() => made(WEB, 4))).toMatch(/^keys_exhausted: .*example\.org\/web/)
    expect(made(DB, 5).alg).toBe('ES256')
    vault.destroy({ spiffeId: WEB, instance: 'process/0' })
    expect(made(WEB, 4).alg).toBe('ES256')
  })

  it('for one owner', () => {
    const { vault, owner } = setUp()
    for (let n = 0; n < 64; n += 1) vault.signerFor(owner(WEB), `dpop:${n}`, CEILING)
    expect(faultOf(() => vault.signerFor(owner(WEB), 'dpop:64', CEILING))).toMatch(/^keys_exhausted: /)
    expect(vault.signerFor(owner(DB), 'dpop:0', CEILING).alg).toBe('ES256')
  })
})
