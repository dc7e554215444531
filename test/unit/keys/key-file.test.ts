import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { readKeyFile } from '../../../src/keys/key-file.ts'
import { ecPair, type Pair, rsaPair } from '../../support/certificates.ts'
import { faultOf } from '../../support/faults.ts'

let file = ''
beforeAll(() => {
  file = join(mkdtempSync(join(tmpdir(), 'holdfast-key-')), 'key.pem')
})
afterAll(() => rmSync(join(file, '..'), { recursive: true }))

const keyPem = ({ privateKey }: Pair) => privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
const put = (text: string) => {
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

it.each([
  ['P-256', 'ES256', ecPair('P-256')],
  ['P-384', 'ES384', ecPair('P-384')],
  ['RSA', 'RS256', rsaPair()],
] as const)('reads a key of %s and signs by %s', (_what, alg, pair) => {
  const held = readKeyFile(put(keyPem(pair)))
  expect(held.alg).toBe(alg)
  expect(held.publicKey.equals(pair.publicKey)).toBe(true)
})

const encrypted = ecPair().privateKey.export({
  format: 'pem',
  type: 'pkcs8',
  cipher: 'aes-256-cbc',
  passphrase: 'a',
})
it.each([
  ['no key', 'none'],
  ['an encrypted key', encrypted.toString()],
  ['a public key', ecPair().publicKey.export({ format: 'pem', type: 'spki' }).toString()],
  ['a key of RSA 1024', keyPem(rsaPair(1024))],
  ['a key of P-521', keyPem(ecPair('P-521'))],
  ['a key of secp256k1', keyPem(ecPair('secp256k1'))],
])('refuses %s, and quotes nothing of it', (_what, text) => {
  expect(faultOf(() => readKeyFile(put(text)))).toBe(
    `config_invalid: ${file}: no unencrypted P-256, P-384 or RSA key (2048 to 8192 bits) in PEM`,
  )
})

it('threats row 13: refuses a key that other users can read', () => {
  chmodSync(put(keyPem(ecPair())), 0o644)
  expect(faultOf(() => readKeyFile(file))).toMatch(
    /^policy_writable: .* others may read this key, mode 0644$/,
  )
})
