/** `openssl verify -x509_strict`: a verifier that nobody here wrote. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** `der` as others read it from files. */
export const pem = (der: Buffer) =>
  `-----BEGIN CERTIFICATE-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE-----\n`

/** What it says of `chain` (leaf first) under `roots` at `now`; `OK` when it verifies. */
export function opensslVerify(
  chain: readonly Buffer[],
  roots: readonly Buffer[],
  now: number,
  purpose = 'sslserver',
): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-openssl-'))
  try {
    const write = (file: string, certificates: readonly Buffer[]) => {
      writeFileSync(join(dir, file), certificates.map(pem).join(''))
      return join(dir, file)
    }
    const [leaf = Buffer.alloc(0), ...intermediates] = chain
    const args = ['verify', '-x509_strict', '-check_ss_sig', '-purpose', purpose, '-attime', String(now)]
    const { stdout, stderr } = spawnSync('openssl', [
      ...args,
      '-CAfile',
      write('roots.pem', roots),
      ...(intermediates.length === 0 ? [] : ['-untrusted', write('chain.pem', intermediates)]),
      write('leaf.pem', [leaf]),
    ])
    return stdout.toString().trim().endsWith(': OK') ? 'OK' : `${stdout}${stderr}`
  } finally {
    rmSync(dir, { recursive: true })
  }
}
