/** The example deploy/examples/mcp: an unmodified MCP client against an MCP server that demands DPoP. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { get as getTls } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type BuiltAgent, ROOT, shownByKernel, startBuiltAgent } from '../support/built-agent.ts'
import { makeClient } from '../support/client-key.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { freshNonce, type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'

const ID = 'spiffe://example.org/assistant'
const RESOURCE = 'https://tools.example.org/'
const CHUNK = 1024 * 1024
const uid = process.getuid?.() ?? 0
const ca = makeTestCa()

let folder: string
let issuer: TestIssuer
let server: ResourceServer
let agent: BuiltAgent
let client: ChildProcess | undefined
/** What of the client's process was looked at while its call was open. */
let seen = { tokens: 0, memory: 0, found: [] as readonly string[], shown: '' }

const transports = new Map<string, StreamableHTTPServerTransport>()

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-mcp-'))
  const { client, pem } = makeClient('assistant', ['tools'])
  issuer = await startIssuer({
    ca,
    nonces: true,
    clients: [client],
    resources: { [RESOURCE]: { scopes: ['tools'], format: 'jwt', ttlSeconds: 120 } },
  })
  const keys = createLocalJWKSet(await published(`${issuer.issuer}/jwks`))
  server = await startResourceServer({
    ca,
    // The token's binding and the proof were checked before; this is the rest.
    handlers: { '/mcp': (request, response) => void serveMcp(keys, request, response) },
  })
  server.nonce = freshNonce()
  write('client.pem', pem, 0o600)
  write('ca.pem', ca.pem)
  mkdirSync(join(folder, 'policy'), { mode: 0o755 })
  for (const [name, content] of Object.entries(policy())) write(join('policy', name), content)
  write('holdfast.yaml', 'trust_domain: example.org\npolicy: { files: [policy] }\negress: { socket: on }\n')
  agent = await startBuiltAgent({ args: ['--config', join(folder, 'holdfast.yaml')] })
})

afterAll(async () => {
  client?.kill()
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await issuer?.stop()
  rmSync(folder, { recursive: true, force: true })
})

function write(name: string, content: string, mode = 0o644): void {
  writeFileSync(join(folder, name), content, { mode })
}

function policy(): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${join(folder, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  return {
    'identity.yaml': `layer: identity
servers:
  - name: login
    issuer: ${issuer.issuer}
    client: { id: assistant, auth: private_key_jwt, key: { file: ${join(folder, 'client.pem')} } }
entries:
  - { spiffe_id: ${ID}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
  - { name: tools, server: login, resource: '${RESOURCE}', scopes: [tools], custody: nothing, max_ttl: 5m }
`,
    'platform.yaml': `layer: platform
targets:
  - { name: tools, origins: ['https://localhost:${server.port}'], ${trust} }
servers:
  - { issuer: ${issuer.issuer}, ${trust} }
`,
    'application.yaml': `layer: application
targets:
  - { name: tools, grants: [{ callers: ['${ID}'], methods: [GET, POST, DELETE], paths: [/mcp] }] }
`,
  }
}

async function published(url: string): Promise<JSONWebKeySet> {
  const response = await new Promise<IncomingMessage>((resolve, reject) =>
    getTls(url, { ca: ca.pem }, resolve).on('error', reject),
  )
  return JSON.parse(await text(response)) as JSONWebKeySet
}

async function serveMcp(
  keys: ReturnType<typeof createLocalJWKSet>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const [, token = ''] = (request.headers.authorization ?? '').split(' ')
  try {
    await jwtVerify(token, keys, { issuer: issuer.issuer, audience: RESOURCE, typ: 'at+jwt' })
  } catch {
    return void response.writeHead(401).end()
  }
  const known = transports.get(String(request.headers['mcp-session-id']))
  await (known ?? (await openSession())).handleRequest(request, response)
}

async function openSession(): Promise<StreamableHTTPServerTransport> {
  const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => void transports.set(id, transport),
    onsessionclosed: (id) => void transports.delete(id),
  })
  const mcp = new McpServer({ name: 'tools', version: '1.0.0' })
  const inputSchema = { a: z.number(), b: z.number() }
  mcp.registerTool(
    'add',
    { description: 'Adds.', inputSchema },
    async ({ a, b }, { _meta, sendNotification }) => {
      const progressToken = _meta?.progressToken ?? ''
      for (const progress of [1, 2])
        await sendNotification({
          method: 'notifications/progress',
          params: { progressToken, progress, total: 2 },
        })
      lookInto(client?.pid ?? 0)
      return { content: [{ type: 'text', text: `sum: ${a + b}` }] }
    },
  )
  await mcp.connect(transport as Parameters<McpServer['connect']>[0])
  return transport
}

/** Tokens and proofs that came here, looked for in all memory of the client while its call waits. */
function lookInto(pid: number): void {
  const secrets = [...server.bytes.matchAll(/^(?:authorization: DPoP|dpop:) (\S+)/gim)].map(
    ([, one = '']) => one,
  )
  const marks = [...new Set(secrets)].map((secret) => secret.slice(-40))
  const memory = memoryOf(pid)
  const found = marks.filter((mark) => memory.some((part) => part.includes(mark)))
  const size = memory.reduce((sum, { length }) => sum + length, 0)
  // What is there is found: the session's name is.
  const isFound = memory.some((part) => part.includes('holdfast-example'))
  seen = { tokens: marks.length, memory: isFound ? size : 0, found, shown: shownByKernel(pid) }
}

/** Every writable, private mapping. */
function memoryOf(pid: number): readonly Buffer[] {
  const fd = openSync(`/proc/${pid}/mem`, 'r')
  const maps = readFileSync(`/proc/${pid}/maps`, 'latin1').matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw\S+ /gm)
  try {
    return [...maps].flatMap(([, from = '', to = '']) => mapping(fd, Number(`0x${from}`), Number(`0x${to}`)))
  } finally {
    closeSync(fd)
  }
}

function mapping(fd: number, from: number, to: number): readonly Buffer[] {
  if (to - from > 256 * CHUNK) return []
  const bytes = Buffer.alloc(to - from)
  try {
    return [bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, from))]
  } catch {
    return []
  }
}

async function runExample(...args: readonly string[]) {
  client = spawn(process.execPath, ['deploy/examples/mcp/client.mjs', ...args], {
    cwd: ROOT,
    env: {
      PATH: process.env['PATH'] ?? '',
      HOLDFAST_EGRESS_SOCKET: join(agent.dir, 'public', 'egress.sock'),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = new Promise<number | null>((resolve) => client?.once('close', resolve))
  const [out, err] = await Promise.all([
    text(client.stdout as NodeJS.ReadableStream),
    text(client.stderr as NodeJS.ReadableStream),
  ])
  return { out, err, code: await ended }
}

describe('an unmodified MCP client', () => {
  it('calls a tool of a server that demands DPoP, over event streams, and ends its session', async () => {
    const { out, err, code } = await runExample('http://tools/mcp', 'add', '{"a": 1, "b": 2}')
    expect({ out, err, code }).toEqual({
      out: 'tools: add\nprogress: 1 of 2\nprogress: 2 of 2\nsum: 3\n',
      err: '',
      code: 0,
    })
    expect(new Set(server.requests.map(({ method }) => method))).toEqual(new Set(['POST', 'GET', 'DELETE']))
    expect(transports.size).toBe(0)
    expect(new Set(server.refused)).toEqual(new Set(['use_dpop_nonce']))
  })

  it('has no token and no proof in its memory, arguments or environment while it calls', () => {
    expect(seen.tokens).toBeGreaterThan(1)
    expect(seen.memory).toBeGreaterThan(CHUNK)
    expect(seen.found).toEqual([])
    expect(seen.shown).not.toMatch(/eyJ/)
  })

  it('is told why when policy does not name its path', async () => {
    const { err, code } = await runExample('http://tools/other')
    expect([code, err]).toEqual([1, expect.stringContaining('policy_denied')])
  })

  it('is refused by the server without the agent', async () => {
    const url = `https://localhost:${server.port}/mcp`
    const status = await new Promise((resolve, reject) =>
      getTls(url, { ca: ca.pem }, (response) => resolve(response.resume().statusCode)).on('error', reject),
    )
    expect(status).toBe(401)
  })
})
