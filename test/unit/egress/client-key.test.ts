import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { ClientKeys, type KeyClient } from '../../../src/egress/client-key.ts'
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

function open() {
  const clock = new ManualClock()
  const vault = new Vault({ clock, rotation: 3_600 })
  const ending = new AbortController()
  return { clock, vault, ending, keys: new ClientKeys({ vault, signal: ending.signal }) }
}

const bookWith = (client: KeyClient) =>
  ({
    entries: [],
    targets: new Map([['orders', { identity: { server: { ...SERVER, client }, binding: [] } }]]),
  }) as unknown as RuleBook

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

  it('is registered with the one before it for ten minutes after a rotation, public parts only', () => {
    const { keys, clock } = open()
    const [old] = keys.jwks(CLIENT, SERVER)
    clock.advance(3_601_000)
    const now = keys.jwks(CLIENT, SERVER)
    expect(now.map(({ kid }) => kid)).toContain(old?.kid)
    expect(now).toHaveLength(2)
    expect(Object.keys(now[0] ?? {}).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'])
    clock.advance(601_000)
    expect(keys.jwks(CLIENT, SERVER)).toHaveLength(1)
  })

  it('outlives a change of policy that still names it, and not one that does not', () => {
    const { keys, vault } = open()
    const { jkt } = keys.signerFor(CLIENT, SERVER)
    expect(withdrawKeys(vault, bookWith(CLIENT))).toBe(0)
    expect(keys.signerFor(CLIENT, SERVER).jkt).toBe(jkt)
    expect(withdrawKeys(vault, bookWith({ ...CLIENT, clientId: 'stock' }))).toBe(1)
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
