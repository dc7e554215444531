import { describe, expect, it } from 'vitest'
import { Vault } from '../../../src/keys/vault.ts'
import { withdrawKeys } from '../../../src/sign/withdraw.ts'
import { ManualClock } from '../../support/clock.ts'
import { bookOf, LAYERS } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'

describe('a change of policy', () => {
  it.each([
    ['http-signature', 'httpsig'],
    ['wpt', 'wpt'],
    ['dpop', 'dpop:target/orders'],
  ])('leaves the keys that %s needs and takes those of other kinds', async (kind, purpose) => {
    const identity = LAYERS.identity.replace(
      WHERE,
      `server: none\n    tokenless: true\n    binding: [${kind}]`,
    )
    const book = await bookOf({ ...LAYERS, identity })
    const [entry] = book.entries
    const vault = new Vault({ clock: new ManualClock(), rotation: 3600 })
    const owner = {
      spiffeId: entry?.spiffeId ?? '',
      instance: { key: 'one', signal: new AbortController().signal },
    }
    const keys = ['httpsig', 'wpt', 'dpop:target/orders'].map((each) => vault.signerFor(owner, each, 60))
    expect(withdrawKeys(vault, book)).toBe(keys.length - 1)
    expect(vault.list(owner).map((each) => each.purpose)).toEqual([purpose])
    vault.stop()
  })
})
