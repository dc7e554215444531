import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { ClientKeys, clientJwks, type KeyClient } from '../../../src/egress/client-key.ts'
import { Vault } from '../../../src/keys/vault.ts'
import type { RuleBook } from '../../../src/policy/book.ts'
import type { Server } from '../../../src/policy/grant.ts'
import { withdrawKeys } from '../../../src/sign/withdraw.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'

const CLIENT: KeyClient = { method: 'private_key_jwt', clientId: 'orders', keyFile: undefined }
const SERVER: Server = { issuer: 'https://as.example.org', tokenEndpoint: undefined, client: CLIENT }

const dirs: string[] = []
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true })
})

function open(rotation = 3_600) {
  const clock = new ManualClock()
  const vault = new Vault({ clock, rotation })
  const ending = new AbortController()
  return { clock, vault, ending, keys: new ClientKeys({ vault, signal: ending.signal }) }
}

const bookWith = (client: KeyClient) =>
  ({
    entries: [],
    identities: () => [],
    targets: new Map(),
    servers: new Map([['as', { ...SERVER, client }]]),
  }) as unknown as RuleBook

/** The thumbprint of the key that signs now, or why none does. */
function signing(keys: ClientKeys): string {
  try {
    return keys.signerFor(CLIENT, SERVER).jkt
  } catch (caught) {
    return Fault.from(caught).reason
  }
}

describe('the key of a client', () => {
  it('is one for each client and each server, and no workload finds it', () => {
    const { keys, vault } = open()
    const { jkt } = keys.signerFor(CLIENT, SERVER)
    expect(keys.signerFor(CLIENT, SERVER).jkt).toBe(jkt)
    expect(keys.signerFor({ ...CLIENT, clientId: 'stock' }, SERVER).jkt).not.toBe(jkt)
    expect(keys.signerFor(CLIENT, { ...SERVER, issuer: 'https://b.example.org' }).jkt).not.toBe(jkt)
    const instance = { key: 'process:1:1', signal: new AbortController().signal }
    expect(vault.find({ spiffeId: 'spiffe://example.org/orders', instance }, jkt)).toBeUndefined()
  })

  it('is published with the next one five minutes before it is due, and ten minutes after it, public parts only', () => {
    const { keys, clock } = open()
    const kids = () => keys.jwks(CLIENT, SERVER).map(({ kid }) => kid)
    const [old = ''] = kids()
    expect(signing(keys)).toBe(old)
    clock.advance(3_299_000)
    expect(kids()).toEqual([old])
    clock.advance(1_000)
    const [, next = ''] = kids()
    expect([kids(), signing(keys)]).toEqual([[old, next], old])
    clock.advance(299_000)
    expect(signing(keys)).toBe(old)
    clock.advance(1_000)
    expect([kids(), signing(keys)]).toEqual([[old, next], next])
    clock.advance(599_000)
    expect(kids()).toEqual([old, next])
    clock.advance(1_000)
    expect(kids()).toEqual([next])
    const [jwk] = keys.jwks(CLIENT, SERVER)
    expect(Object.keys(jwk ?? {}).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'])
  })

  it('never signs without having been published for five minutes, but for the first, whatever is lost or asked', () => {
    const { keys, vault, clock } = open(60)
    const known = new Map<string, number>()
    const first = signing(keys)
    let signed = 0
    for (let second = 0; second < 4_000; second += 1) {
      const now = clock.monotonic()
      for (const { kid } of keys.jwks(CLIENT, SERVER)) if (!known.has(kid)) known.set(kid, now)
      const jkt = signing(keys)
      if (jkt !== 'not_ready' && jkt !== first) {
        signed += 1
        expect(now - (known.get(jkt) ?? now)).toBeGreaterThanOrEqual(300_000)
      }
      if (second === 1_000) vault.replaceAll()
      if (second === 2_000) vault.destroy({ jkt: keys.jwks(CLIENT, SERVER).at(-1)?.kid ?? '' })
      if (second === 2_500) clock.jump(3_600_000)
      clock.advance(second % 7 === 0 ? 3_000 : 1_000)
    }
    expect(signed).toBeGreaterThan(2_000)
    expect(known.size).toBeGreaterThan(10)
  })

  it('is waited for after a loss, and the reason says how long', () => {
    const { keys, vault, clock } = open()
    const { jkt } = keys.signerFor(CLIENT, SERVER)
    vault.destroy({ jkt })
    const [next] = keys.jwks(CLIENT, SERVER)
    const refused = () => {
      try {
        keys.signerFor(CLIENT, SERVER)
      } catch (caught) {
        return Fault.from(caught)
      }
      throw new Error('it signs')
    }
    expect([refused().reason, refused().retryAfterSeconds]).toEqual(['not_ready', 300])
    clock.advance(299_000)
    expect(refused().retryAfterSeconds).toBe(1)
    clock.advance(1_000)
    expect(keys.signerFor(CLIENT, SERVER).jkt).toBe(next?.kid)
  })

  it('signs at once after a loss that no copy of the JWKS can remember', () => {
    const { keys, vault, clock } = open()
    keys.signerFor(CLIENT, SERVER)
    vault.replaceAll()
    clock.advance(300_000)
    expect(signing(keys)).not.toBe('not_ready')
  })

  it('gives way to the next one where it is lost while that one waits', () => {
    const { keys, vault, clock } = open()
    const { jkt } = keys.signerFor(CLIENT, SERVER)
    clock.advance(3_400_000)
    const [, next] = keys.jwks(CLIENT, SERVER)
    vault.destroy({ jkt })
    expect(signing(keys)).toBe('not_ready')
    clock.advance(200_000)
    expect(keys.signerFor(CLIENT, SERVER).jkt).toBe(next?.kid)
  })

  it('outlives a change of policy that still names it, and not one that does not', () => {
    const { keys, vault } = open()
    const { jkt } = keys.signerFor(CLIENT, SERVER)
    expect(withdrawKeys(vault, bookWith(CLIENT))).toBe(0)
    expect(keys.signerFor(CLIENT, SERVER).jkt).toBe(jkt)
    expect(withdrawKeys(vault, bookWith({ ...CLIENT, clientId: 'stock' }))).toBe(1)
  })

  it('is published for the server that policy names, when its client signs with a key', () => {
    const { keys } = open()
    const text = clientJwks(keys, bookWith(CLIENT), 'as')
    expect(JSON.parse(text ?? '')).toEqual({ keys: keys.jwks(CLIENT, SERVER) })
    expect(clientJwks(keys, bookWith(CLIENT), 'other')).toBeUndefined()
    const shown = { method: 'tls_client_auth', clientId: 'orders' } as unknown as KeyClient
    expect(clientJwks(keys, bookWith(shown), 'as')).toBeUndefined()
  })

  it('ends with the agent', () => {
    const { keys, vault, ending } = open()
    keys.signerFor(CLIENT, SERVER)
    ending.abort()
    expect(vault.count).toBe(0)
    expect(faultOf(() => keys.signerFor(CLIENT, SERVER))).toContain('lease_ended')
  })

  it('comes from a file, is read again when it changes, and stays while the file is broken', () => {
    const { keys } = open()
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-client-key-'))
    dirs.push(dir)
    const keyFile = join(dir, 'client.pem')
    const write = (text: string) => {
      writeFileSync(keyFile, text)
      chmodSync(keyFile, 0o600)
    }
    const make = () =>
      String(
        generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
          format: 'pem',
          type: 'pkcs8',
        }),
      )
    const client = { ...CLIENT, keyFile }
    expect(faultOf(() => keys.signerFor(client, SERVER))).toContain('config_invalid')
    write(make())
    const first = keys.signerFor(client, SERVER).jkt
    write(`${make()}\n`)
    const second = keys.signerFor(client, SERVER).jkt
    expect(second).not.toBe(first)
    write('broken')
    expect(keys.signerFor(client, SERVER).jkt).toBe(second)
    expect(keys.jwks(client, SERVER).map(({ kid }) => kid)).toEqual([second])
  })
})
