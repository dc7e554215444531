/** Keys that nodes share: whose tokens each verifies, and when a key that was put first begins to sign. */
import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import { Live } from '../../../src/base/live.ts'
import { embeddedAuthority } from '../../../src/issue/embedded.ts'
import { readSharedKeys, type SharedKeySet } from '../../../src/issue/shared-keys.ts'
import { generateKey } from '../../../src/keys/signer.ts'
import { parseTrustDomain, parseWorkloadId } from '../../../src/spiffe/id.ts'
import { verifyJwtSvid } from '../../../src/spiffe/jwtsvid.ts'
import { ManualClock } from '../../support/clock.ts'

const trustDomain = parseTrustDomain('example.org')
const spiffeId = parseWorkloadId('spiffe://example.org/web')
const LEAD = 300

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-keys-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const jwk = (kid: string, use = 'jwt-svid') => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { ...privateKey.export({ format: 'jwk' }), kid, use }
}

function write(keys: unknown, mode = 0o400): string {
  const file = join(dir, 'keys.json')
  rmSync(file, { force: true })
  writeFileSync(file, JSON.stringify({ keys }), { mode })
  return file
}

/** A node with the set in `live`. */
function openNode(sharedKeys: Live<SharedKeySet>, clock = new ManualClock()) {
  const common = {
    trustDomain,
    clock,
    algorithm: 'ES256',
    intermediate: false,
    caTtl: 86_400,
    keyTtl: 86_400,
  } as const
  const authority = embeddedAuthority({ ...common, wit: true, sharedKeys })
  const sign = () => authority.issueJwt({ spiffeId, audience: ['a'], ttl: 300 }).token
  const kid = () =>
    (JSON.parse(Buffer.from(sign().split('.')[0] ?? '', 'base64url').toString()) as { kid: string }).kid
  return { authority, clock, sign, kid }
}

describe('a shared key set', () => {
  it('lets nodes verify each other, JWT-SVIDs and WIT-SVIDs alike', () => {
    const file = write([jwk('one'), jwk('two', 'wit-svid')])
    const [a, b] = [1, 2].map(() => openNode(new Live(readSharedKeys(file, true))))
    if (!a || !b) throw new Error('no nodes')
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const checked = verifyJwtSvid(from.sign(), 'a', () => to.authority.bundle.get(), nowSeconds(to.clock))
      expect(checked.spiffeId).toBe(spiffeId)
      const { publicJwk, alg } = generateKey('ES256')
      const { token } = from.authority.issueWit({ spiffeId, publicJwk, alg, ttl: 300 })
      const { kid } = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()) as {
        kid: string
      }
      expect([...to.authority.bundle.get().witAuthorities.keys()]).toEqual([kid])
    }
    expect([...b.authority.bundle.get().jwtAuthorities.keys()]).toEqual(['one'])
    for (const { authority } of [a, b]) authority.stop()
  })

  it('publishes a new key at once, and signs with it when it was published long enough', () => {
    const [one, two] = [jwk('one'), jwk('two')]
    const live = new Live(readSharedKeys(write([one]), false))
    const node = openNode(live)
    live.set(readSharedKeys(write([two, one]), false))
    node.clock.advance(2_000)
    expect([...node.authority.bundle.get().jwtAuthorities.keys()]).toEqual(['two', 'one'])
    expect(node.kid()).toBe('one')
    node.clock.advance((LEAD - 3) * 1000)
    expect(node.kid()).toBe('one')
    node.clock.advance(5_000)
    expect(node.kid()).toBe('two')
    node.authority.stop()
  })

  it('signs no more with a key that was taken out, from that moment', () => {
    const [one, two] = [jwk('one'), jwk('two')]
    const live = new Live(readSharedKeys(write([one, two]), false))
    const node = openNode(live)
    live.set(readSharedKeys(write([two]), false))
    expect(node.kid()).toBe('two')
    node.clock.advance(2_000)
    expect([...node.authority.bundle.get().jwtAuthorities.keys()]).toEqual(['two'])
    node.authority.stop()
  })

  it('is read through the symlinks of a mounted Secret, with the group of the pod', () => {
    const file = write([jwk('one')], 0o440)
    symlinkSync('keys.json', join(dir, 'link.json'))
    expect(readSharedKeys(join(dir, 'link.json'), false).jwt.map(({ kid }) => kid)).toEqual(['one'])
    chmodSync(file, 0o444)
    expect(() => readSharedKeys(file, false)).toThrow('others may read this key')
  })

  const same = jwk('one')
  it.each([
    ['nothing', undefined, 'no JWK Set'],
    ['no key for JWT-SVIDs', [jwk('one', 'wit-svid')], 'no key with use jwt-svid'],
    ['no key for WIT-SVIDs', [jwk('one')], 'no key with use wit-svid'],
    ['a key without a use', [{ ...same, use: undefined }], 'wanted use jwt-svid or wit-svid'],
    ['a key of another use', [{ ...same, use: 'sig' }], 'wanted use jwt-svid or wit-svid'],
    ['a public key', [{ ...same, d: undefined }], 'no private key'],
    ['a symmetric key', [{ kty: 'oct', k: 'AAAA', kid: 'x', use: 'jwt-svid' }], 'wanted P-256'],
    ['two keys of one name', [same, jwk('one', 'wit-svid')], 'two keys have one kid'],
    ['one key for two uses', [same, { ...same, kid: 'two', use: 'wit-svid' }], 'a key has one purpose'],
    ['a key without a name', [{ ...same, kid: undefined }], 'without a kid'],
  ])('is refused with %s, and nothing of it is shown', (_what, keys, why) => {
    const read = () => readSharedKeys(write(keys), true)
    expect(read).toThrow(why)
    expect(read).not.toThrow(String(same.d))
  })
})
