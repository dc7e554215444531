/** The built agent with its authority mounted as a kubelet mounts a Secret: files behind `..data`, which is exchanged at once. */
import { execFile } from 'node:child_process'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, expect, it } from 'vitest'
import { type BuiltAgent, ROOT, startBuiltAgent } from '../support/built-agent.ts'
import { makeAuthority, type TestAuthority, validity } from '../support/certificates.ts'
import { pem } from '../support/openssl.ts'
import { RawClient } from '../support/raw-client.ts'
import { until } from '../support/until.ts'

const run = promisify(execFile)
const API = 'SpiffeWorkloadAPI'
const ID = 'spiffe://example.org/web'
const POLICY = `layer: identity
entries:
  - spiffe_id: ${ID}
    selectors: ['unix:uid:${process.getuid?.() ?? 0}']
    deliver: { x509: true, jwt: true, wit: false }
`

const dirs: string[] = []
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true })
})

function newDirectory(): string {
  const dir = mkdtempSync(join(tmpdir(), 'hf-mounted-'))
  dirs.push(dir)
  return dir
}

/** What a kubelet does when a Secret is mounted, and again when it has changed; `version` is in the place of its time. */
function mountSecret(dir: string, version: string, files: Readonly<Record<string, string>>): void {
  const isNew = version === '1'
  mkdirSync(join(dir, `..${version}`))
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(dir, `..${version}`, name), text, { mode: 0o400 })
    if (isNew) symlinkSync(`..data/${name}`, join(dir, name))
  }
  symlinkSync(`..${version}`, join(dir, '..data_tmp'))
  renameSync(join(dir, '..data_tmp'), join(dir, '..data'))
  if (!isNew) rmSync(join(dir, `..${Number(version) - 1}`), { recursive: true })
}

function startMounted(authority: string): Promise<BuiltAgent> {
  const dir = newDirectory()
  writeFileSync(join(dir, 'identity.yaml'), POLICY)
  const config = `trust_domain: example.org\npolicy: { files: [${join(dir, 'identity.yaml')}] }\nauthority: { ${authority} }\n`
  writeFileSync(join(dir, 'holdfast.yaml'), config)
  return startBuiltAgent({ args: ['--config', join(dir, 'holdfast.yaml')] })
}

const now = Math.floor(Date.now() / 1000)
const span = validity(now - 60, now + 7200)

function secretOf(root: TestAuthority, commonName: string): Readonly<Record<string, string>> {
  const ca = makeAuthority({ signedBy: root, commonName, pathLength: 0, validity: span })
  const key = ca.pair.privateKey.export({ format: 'pem', type: 'pkcs8' })
  return { 'tls.crt': pem(ca.der), 'tls.key': String(key), 'ca.crt': pem(root.der) }
}

const CALLER = `import { openX509Source } from '${ROOT}dist/client.js'
const source = await openX509Source()
const { cert, ca } = source.pem()
process.stdout.write(cert + ca)
source.close()`

/** The X.509-SVID that a new process gets. */
async function svidAt({ socket }: BuiltAgent) {
  const env = { ...process.env, SPIFFE_ENDPOINT_SOCKET: `unix://${socket}` }
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', CALLER], { env })
  const parts = stdout.split(/(?<=-----END CERTIFICATE-----\n)/).filter((part) => part.trim() !== '')
  const [leaf, issuer, ...roots] = parts.map((part) => new X509Certificate(part))
  if (!leaf || !issuer) throw new Error(`no chain: ${stdout}`)
  return { leaf, issuer, roots }
}

const audience = 'orders'

async function jwtAt({ socket }: BuiltAgent): Promise<string> {
  using client = new RawClient(socket)
  const { svids } = await client.unary(`${API}/FetchJWTSVID`, { audience: [audience] })
  return svids[0].svid
}

async function validateAt({ socket }: BuiltAgent, svid: string) {
  using client = new RawClient(socket)
  return await client.unary(`${API}/ValidateJWTSVID`, { audience, svid })
}

/** The root that verifies it. */
const rootOf = ({ leaf, issuer, roots }: Awaited<ReturnType<typeof svidAt>>) =>
  leaf.verify(issuer.publicKey) ? roots.find((root) => issuer.verify(root.publicKey))?.subject : undefined

it('takes over the CA that a Secret has now: it is published before it signs, beside the one that signed before', async () => {
  const mount = newDirectory()
  const [root, next] = ['one', 'two'].map((commonName) => makeAuthority({ commonName, validity: span }))
  if (!root || !next) throw new Error('no roots')
  mountSecret(mount, '1', secretOf(root, 'first'))
  const ca = `certificate_file: ${mount}/tls.crt, key_file: ${mount}/tls.key, chain_file: ${mount}/ca.crt`
  await using agent = await startMounted(`nodes: one, ca: { ${ca} }`)
  const before = await svidAt(agent)
  expect([before.issuer.subject, rootOf(before)]).toEqual(['CN=first', 'CN=one'])
  mountSecret(mount, '2', secretOf(next, 'second'))
  const after = await until('the next root', async () => {
    const svid = await svidAt(agent)
    return svid.roots.some(({ subject }) => subject === 'CN=two') ? svid : undefined
  })
  expect(rootOf(after)).toBe('CN=one')
  expect(rootOf({ ...before, roots: after.roots })).toBe('CN=one')
}, 60_000)

it('signs with the next intermediate below the same root as soon as the Secret has it', async () => {
  const mount = newDirectory()
  const root = makeAuthority({ commonName: 'one', validity: span })
  mountSecret(mount, '1', secretOf(root, 'first'))
  const ca = `certificate_file: ${mount}/tls.crt, key_file: ${mount}/tls.key, chain_file: ${mount}/ca.crt`
  await using agent = await startMounted(`nodes: one, ca: { ${ca} }`)
  const before = await svidAt(agent)
  mountSecret(mount, '2', secretOf(root, 'second'))
  const after = await until('an SVID of the next', async () => {
    const svid = await svidAt(agent)
    return svid.issuer.subject === 'CN=second' ? svid : undefined
  })
  expect([before, after].map((svid) => [svid.issuer.subject, rootOf(svid)])).toEqual([
    ['CN=first', 'CN=one'],
    ['CN=second', 'CN=one'],
  ])
}, 60_000)

it('two agents with one mounted set of JWT keys validate what the other signed', async () => {
  const mount = newDirectory()
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keys = [{ ...privateKey.export({ format: 'jwk' }), kid: 'shared-1', use: 'jwt-svid' }]
  mountSecret(mount, '1', { 'keys.json': JSON.stringify({ keys }) })
  const root = makeAuthority({ validity: span })
  const secret = newDirectory()
  mountSecret(secret, '1', secretOf(root, 'node'))
  const ca = `certificate_file: ${secret}/tls.crt, key_file: ${secret}/tls.key, chain_file: ${secret}/ca.crt`
  const authority = `nodes: many, jwt_keys_file: ${mount}/keys.json, ca: { ${ca} }`
  await using one = await startMounted(authority)
  await using other = await startMounted(authority)
  await using stranger = await startMounted('nodes: one')
  const svid = await jwtAt(one)
  for (const agent of [one, other])
    expect(await validateAt(agent, svid)).toEqual(expect.objectContaining({ spiffe_id: ID }))
  expect(await validateAt(stranger, svid)).toEqual(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
}, 60_000)
