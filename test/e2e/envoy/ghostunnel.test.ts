/** ghostunnel, unmodified, on both sides of mutual TLS: keys and bundles by the Workload API, where the program is installed. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, get } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAgent, type TestAgent } from '../../support/agent.ts'
import { freePort } from '../../support/envoy.ts'
import { until } from '../../support/until.ts'

const UID = process.getuid?.() ?? 0
const OWN = 'spiffe://dev.holdfast.test/tunnel'
const policy = (ttl: string) => ({
  'identity.yaml': `layer: identity
entries:
  - spiffe_id: ${OWN}
    selectors: [unix:uid:${UID}]
    deliver: { x509: true, jwt: false, wit: false }
    x509_ttl: ${ttl}
`,
})

const hasGhostunnel = spawnSync('ghostunnel', ['--version']).status === 0
if (!hasGhostunnel) {
  console.warn('SKIPPED: ghostunnel is not installed')
  it.skip('ghostunnel works unchanged', () => {})
}

if (hasGhostunnel) describe('ghostunnel', suite)

function suite(): void {
  const children: ChildProcess[] = []
  const app = createServer((_request, response) => response.end('hello'))
  let agent: TestAgent
  let server: number
  /** What all of them have written. */
  let output = ''

  const run = async (port: number, ...args: readonly string[]) => {
    const common = [`--use-workload-api-addr=unix://${agent.socket}`, `--listen=127.0.0.1:${port}`]
    const child = spawn('ghostunnel', [...args, ...common], { stdio: ['ignore', 'pipe', 'pipe'] })
    children.push(child)
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
    await until(`ghostunnel to listen`, async () => {
      if (child.exitCode !== null) throw new Error(output)
      return answers(port)
    })
    return port
  }
  const runServer = async (...allow: readonly string[]) =>
    run(await freePort(), 'server', `--target=127.0.0.1:${(app.address() as AddressInfo).port}`, ...allow)
  const runClient = async (target: number, id: string) =>
    run(await freePort(), 'client', `--target=127.0.0.1:${target}`, `--verify-uri=${id}`)

  beforeAll(async () => {
    agent = await startAgent({ policy: policy('1h') })
    await once(app.listen(0, '127.0.0.1'), 'listening')
    server = await runServer(`--allow-uri=${OWN}`)
  }, 60_000)
  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL')
    app.closeAllConnections()
    app.close()
    await agent[Symbol.asyncDispose]()
  })

  it('connects a client and a server that know each other by SPIFFE ID', async () => {
    const client = await runClient(server, OWN)
    expect(await ask(client)).toBe('hello')
  })

  it('refuses a server and a client with other SPIFFE IDs', async () => {
    expect(await ask(await runClient(server, 'spiffe://dev.holdfast.test/other'))).toBe('none')
    const other = await runServer('--allow-uri=spiffe://dev.holdfast.test/other')
    expect(await ask(await runClient(other, OWN))).toBe('none')
  })

  it('takes new keys as they come, and comes back when a withdrawn entry does', async () => {
    const client = await runClient(server, OWN)
    const serials = new Set([await serialAt(server)])
    const isNew = async () => serials.size < serials.add(await serialAt(server)).size
    await agent.setPolicy(policy('30m'))
    await until('a certificate of the new lifetime', isNew)
    expect(await ask(client)).toBe('hello')
    await agent.setPolicy({ 'identity.yaml': 'layer: identity\nentries: []\n' })
    await until('both to hear of it', () => output.split('PermissionDenied').length > 2)
    await agent.setPolicy(policy('1h'))
    await until('a certificate after that', isNew, 30_000)
    expect(await ask(client)).toBe('hello')
  }, 60_000)
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    const done = (isUp: boolean) => {
      socket.destroy()
      resolve(isUp)
    }
    socket.once('connect', () => done(true)).once('error', () => done(false))
  })
}

/** The serial number of the certificate that a server shows, to whoever has none. */
function serialAt(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({ host: '127.0.0.1', port, rejectUnauthorized: false })
    socket.once('secureConnect', () => {
      resolve(socket.getPeerCertificate().serialNumber)
      socket.destroy()
    })
    socket.once('error', reject)
  })
}

/** What is answered through a tunnel, or `none`. */
function ask(port: number): Promise<string> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, agent: false, timeout: 5_000 }, (response) => {
      let body = ''
      response.on('data', (chunk) => (body += chunk)).on('end', () => resolve(body))
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve('none'))
  })
}
