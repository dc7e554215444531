/** `openssl verify -x509_strict` on what the agent hands out: the strictest common reader of certificates. */
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { nowSeconds, systemClock } from '../../src/base/clock.ts'
import { startAgent } from '../support/agent.ts'
import { startBuiltAgent } from '../support/built-agent.ts'
import { opensslVerify } from '../support/openssl.ts'
import { first, RawClient } from '../support/raw-client.ts'

const isMissing = spawnSync('openssl', ['version']).status !== 0
if (isMissing) console.warn('SKIPPED: openssl is missing; .ci/tools installs it')
const test = it.skipIf(isMissing)

interface Fetched {
  readonly chain: readonly Buffer[]
  readonly roots: readonly Buffer[]
  readonly key: Buffer
}

async function fetchSvid(socket: string): Promise<Fetched> {
  using client = new RawClient(socket)
  const { svids } = await first(client, 'SpiffeWorkloadAPI/FetchX509SVID')
  const { x509_svid, bundle, x509_svid_key: key } = svids[0]
  return { chain: split(x509_svid), roots: split(bundle), key }
}

/** Concatenated DER, cut by the length that each certificate says it has. */
function split(der: Buffer): readonly Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at < der.length; ) {
    const length = 4 + der.readUInt16BE(at + 2)
    found.push(der.subarray(at, at + length))
    at += length
  }
  return found
}

const PURPOSES = ['sslserver', 'sslclient']

describe('openssl', () => {
  test('accepts the SVID of the built agent for servers and clients, and its key', async () => {
    await using agent = await startBuiltAgent()
    const { chain, roots, key } = await fetchSvid(agent.socket)
    for (const purpose of PURPOSES)
      expect(opensslVerify(chain, roots, nowSeconds(systemClock), purpose)).toBe('OK')
    expect(publicKeyOf(key)).toBe(spkiOf(chain[0]))
  })

  test.each([
    ['ES256', true],
    ['ES384', false],
    ['ES384', true],
    ['RS256', false],
    ['RS256', true],
    ['PS256', false],
    ['PS256', true],
  ] as const)('accepts SVIDs signed with %s (intermediate: %s)', async (algorithm, intermediate) => {
    await using agent = await startAgent({
      config: (config) => ({ ...config, authority: { ...config.authority, algorithm, intermediate } }),
    })
    const { chain, roots } = await fetchSvid(agent.socket)
    expect(chain).toHaveLength(intermediate ? 2 : 1)
    for (const purpose of PURPOSES)
      expect(opensslVerify(chain, roots, nowSeconds(systemClock), purpose)).toBe('OK')
  })
})

/** The public key of an unencrypted PKCS#8 key, as openssl reads it. */
function publicKeyOf(pkcs8: Buffer): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-key-'))
  try {
    const file = join(dir, 'key.der')
    writeFileSync(file, pkcs8, { mode: 0o600 })
    const args = ['pkey', '-inform', 'DER', '-in', file, '-pubout', '-outform', 'PEM']
    return spawnSync('openssl', args, { encoding: 'utf8' }).stdout
  } finally {
    rmSync(dir, { recursive: true })
  }
}

const spkiOf = (certificate: Buffer = Buffer.alloc(0)) =>
  new X509Certificate(certificate).publicKey.export({ type: 'spki', format: 'pem' })
