/** The published package: its tarball alone, with nothing installed beside it, gives `holdfast/client` and `holdfast/verify` with types. */
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

const VERIFYING = `
import { createServer } from 'node:http'
import { once } from 'node:events'
import { Fault as ClientFault } from 'holdfast/client'
import { createVerifier, Fault } from 'holdfast/verify'
const heard = []
const verifier = createVerifier({
  servers: [{ name: 'login', issuer: 'https://login.example.org' }],
  audience: ['https://api.example.org'],
  origins: ['https://api.example.org'],
  grants: [],
  onRefused: ({ reason }) => heard.push(reason),
})
const server = createServer((request, response) => verifier.express()(request, response, () => response.end('in')))
await once(server.listen(0, '127.0.0.1'), 'listening')
const answer = await fetch('http://127.0.0.1:' + server.address().port + '/orders')
let wrong
try { createVerifier({ orgins: [] }) } catch (error) { wrong = error }
console.log(JSON.stringify({
  status: answer.status,
  challenge: answer.headers.get('www-authenticate').split(' ')[0],
  heard,
  wrong: wrong instanceof Fault && wrong instanceof ClientFault ? wrong.reason : String(wrong),
}))
server.close()
verifier.close()
`

const VERIFYING_TYPED = `
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createVerifier, Fault, type Outcome, type ReplayStore, type VerifiedMessage } from 'holdfast/verify'

const replay: ReplayStore = { use: async ({ jti }) => (jti === '' ? 'replayed' : 'fresh'), stop: () => {} }
const verifier = createVerifier({
  servers: [{ name: 'login', issuer: 'https://login.example.org' }],
  audience: ['https://api.example.org'],
  origins: ['https://api.example.org'],
  grants: [{ callers: ['client:login/web'], methods: ['GET'], paths: ['/orders/**'], scopes: ['read'] }],
  replay,
  isRevoked: ({ jkt }) => jkt === 'x',
  onRefused: (fault: Fault, { route }) => console.error(fault.reason, route),
})
export const many = createVerifier({ servers: [], routes: [{ name: 'a', origins: [], grants: [], servers: [] }] })
export const byAgent = createVerifier({ socket: '/run/holdfast/public/verifier.sock', route: 'orders' })
export const handler = verifier.fetchHandler((request, { caller }) => new Response(caller.names[0] ?? request.url))
export async function plain(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const outcome: Outcome = await verifier.node(request)
  if (!outcome.verified) return void response.writeHead(outcome.challenge.status, outcome.challenge.headers).end()
  response.end(outcome.verified.caller.subject)
}
export const subjectOf = (request: VerifiedMessage): string | undefined => request.holdfast?.caller.subject
// @ts-expect-error: a route without grants lets nobody in, which has to be said.
createVerifier({ origins: [] })
`

describe('the package', () => {
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

  it('has the middleware, which needs no agent and speaks of the same Faults', async () => {
    writeFileSync(join(app, 'verify.js'), VERIFYING)
    const { stdout, stderr } = await run(process.execPath, ['verify.js'], { cwd: app, timeout: 30_000 })
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual({
      status: 401,
      challenge: 'DPoP',
      heard: ['token_missing'],
      wrong: 'policy_invalid',
    })
  })

  it('has types that a strict program compiles with, libraries checked', async () => {
    const types = join(app, 'node_modules', '@types')
    mkdirSync(types, { recursive: true })
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(types, 'node'))
    writeFileSync(join(app, 'main.ts'), TYPED)
    writeFileSync(join(app, 'verify.ts'), VERIFYING_TYPED)
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
      JSON.stringify({ compilerOptions: options, files: ['main.ts', 'verify.ts'] }),
    )
    const compile = run(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', app])
    expect(await compile.catch((error: { stdout: string }) => error)).toMatchObject({ stdout: '' })
  })

  it('exports the client, the middleware and its own description, and no way around them', async () => {
    const { exports } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'))
    expect(Object.keys(exports)).toEqual(['./client', './verify', './package.json'])
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
      'dist/verify.js',
    ])
      expect(files).toContain(name)
    expect(files.filter((name) => /^(?:src|test|node_modules)\b/.test(name))).toEqual([])
  })
})
