/** The published package: its tarball alone, with nothing installed beside it, gives `holdfast/client` with types. */
import { execFile } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAgent } from '../support/agent.ts'

const ROOT = new URL('../..', import.meta.url).pathname
const app = mkdtempSync(join(tmpdir(), 'holdfast-pack-'))
const installed = join(app, 'node_modules', 'holdfast')
const run = promisify(execFile)

beforeAll(async () => {
  await run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', app], { cwd: ROOT })
  const tarball = readdirSync(app).find((name) => name.endsWith('.tgz')) ?? ''
  mkdirSync(installed, { recursive: true })
  await run('tar', ['-xzf', join(app, tarball), '-C', installed, '--strip-components=1'])
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'app', type: 'module' }))
})
afterAll(() => rmSync(app, { recursive: true, force: true }))

const PROGRAM = `
import { Fault, openJwtSource, openSigner, openX509Source, wrapFetch } from 'holdfast/client'
const signer = openSigner()
const { proof, jkt } = await signer.dpop({ method: 'GET', url: 'https://api.example.test/v1/items' })
const refused = await signer.dpop({ method: 'GET', url: 'https://other.test/' }).catch((error) => error)
const x509 = await openX509Source()
const jwt = await openJwtSource()
const { spiffeId } = await jwt.fetchJwt('orders')
console.log(JSON.stringify({
  parts: proof.split('.').length,
  thumbprint: jkt.length,
  refused: refused instanceof Fault ? refused.reason : String(refused),
  isSameId: spiffeId === x509.svid().spiffeId,
  wrapped: typeof wrapFetch(signer, { accessToken: () => 't' }),
}))
for (const each of [signer, x509, jwt]) each.close()
`

const TYPED = `
import { type DpopProof, Fault, openJwtSource, openSigner, openX509Source, type Reason, wrapFetch } from 'holdfast/client'

export async function main(): Promise<string> {
  await using signer = openSigner({ socket: 'unix:///run/holdfast/public/workload.sock' })
  await using source = await openX509Source({ signal: AbortSignal.timeout(1000) })
  await using tokens = await openJwtSource()
  const proof: DpopProof = await signer.dpop({ method: 'GET', url: 'https://a.test/' }, { timeoutMs: 100 })
  const call: typeof fetch = wrapFetch(signer, { accessToken: async () => 't' })
  signer.onKeysLost((lost) => lost.map(({ jkt }) => jkt))
  const response = await call('https://a.test/').catch((error: unknown) => {
    const reason: Reason | undefined = error instanceof Fault ? error.reason : undefined
    return reason
  })
  const { token } = await tokens.fetchJwt('orders')
  // @ts-expect-error: a request without its method is no request.
  await signer.dpop({ url: 'https://a.test/' })
  return [proof.jkt, source.pem().cert, token, String(response)].join()
}
`

describe('the packed client', () => {
  it('runs alone: finds the agent by its environment, signs, and lets the process end', async () => {
    await using agent = await startAgent()
    writeFileSync(join(app, 'main.js'), PROGRAM)
    const env = { ...process.env, NODE_OPTIONS: '', SPIFFE_ENDPOINT_SOCKET: `unix://${agent.socket}` }
    const { stdout, stderr } = await run(process.execPath, ['main.js'], { cwd: app, env, timeout: 30_000 })
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual({
      parts: 3,
      thumbprint: 43,
      refused: 'target_unknown',
      isSameId: true,
      wrapped: 'function',
    })
  })

  it('has types that a strict program compiles with, libraries checked', async () => {
    const types = join(app, 'node_modules', '@types')
    mkdirSync(types, { recursive: true })
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(types, 'node'))
    writeFileSync(join(app, 'main.ts'), TYPED)
    const options = {
      module: 'NodeNext',
      target: 'ES2023',
      lib: ['ES2023', 'ESNext.Disposable'],
      types: ['node'],
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
    }
    writeFileSync(
      join(app, 'tsconfig.json'),
      JSON.stringify({ compilerOptions: options, files: ['main.ts'] }),
    )
    const compile = run(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', app])
    expect(await compile.catch((error: { stdout: string }) => error)).toMatchObject({ stdout: '' })
  })

  it('exports the client and its own description, and no way around them', async () => {
    const { exports } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'))
    expect(Object.keys(exports)).toEqual(['./client', './package.json'])
    writeFileSync(join(app, 'inner.js'), "await import('holdfast/dist/holdfast.js')")
    const inner = run(process.execPath, ['inner.js'], { cwd: app })
    await expect(inner).rejects.toThrow(/ERR_PACKAGE_PATH_NOT_EXPORTED/)
  })

  it('carries what it reads at run time and nothing that is only ours', () => {
    const files = readdirSync(installed, { recursive: true, encoding: 'utf8' })
    for (const name of [
      'proto/workload.proto',
      'proto/holdfast.proto',
      'proto/status.proto',
      'dist/client.js',
    ])
      expect(files).toContain(name)
    expect(files.filter((name) => /^(?:src|test|node_modules)\b/.test(name))).toEqual([])
  })
})
