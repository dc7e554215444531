/** An agent whose egress door leads to an authorization server and a resource server in a process of their own. */
import { type ChildProcess, fork } from 'node:child_process'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { publicJwkOf, thumbprint } from '../../src/spiffe/jwk.ts'
import { type BenchAgent, endOf, type Setup, startAgent } from './agent.ts'

/** Targets that all lead to the resource server; each has tokens of its own. */
export const TARGETS = ['orders', 'stock', 'mail'] as const
export const RESOURCES = TARGETS.map((name) => `https://${name}.example.org/`)
/** Bytes of a body that is big. */
export const BIG = 1_000_000_000

export type ToUpstream = 'count'

/** `closed` is the time of CLOCK_MONOTONIC in ns. */
export type FromUpstream =
  | { readonly issuer: string; readonly port: number; readonly ca: string }
  | TokenRequests
  | { readonly closed: string }

/** What became of requests for tokens. */
export interface TokenRequests {
  readonly issued: number
  readonly refused: number
}

export interface Bench {
  readonly agent: BenchAgent
  readonly port: number
  readonly ca: string
  tokenRequests(): Promise<TokenRequests>
  /** When the next held answer ends at the resource server, in ns of CLOCK_MONOTONIC. */
  nextClosed(): Promise<bigint>
  stop(): Promise<void>
}

/** Starts all three. */
export async function startBench(): Promise<Bench> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = publicJwkOf(createPublicKey(privateKey))
  const child = fork(fileURLToPath(new URL('upstream.js', import.meta.url)), {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  const ended = endOf(child, 'the upstream')
  const begun = next(child, 'issuer')
  child.send({ ...jwk, kid: thumbprint(jwk) })
  const { issuer, port, ca } = await begun
  const key = String(privateKey.export({ format: 'pem', type: 'pkcs8' }))
  const agent = await startAgent({ setup: (base) => setup(base, { issuer, port, ca, key }) })
  return {
    agent,
    port,
    ca,
    tokenRequests: () => {
      const counted = next(child, 'issued')
      child.send('count' satisfies ToUpstream)
      return counted
    },
    nextClosed: async () => BigInt((await next(child, 'closed')).closed),
    stop: async () => {
      await agent.stop()
      child.kill('SIGKILL')
      await ended
    },
  }
}

/** The next message that has `member`. */
function next<K extends string>(child: ChildProcess, member: K) {
  return new Promise<Extract<FromUpstream, Readonly<Record<K, unknown>>>>((resolve, reject) => {
    const hear = (news: FromUpstream) => {
      if (!(member in news)) return
      child.off('message', hear)
      child.off('exit', end)
      resolve(news as Extract<FromUpstream, Readonly<Record<K, unknown>>>)
    }
    const end = () => reject(new Error('the resource server has ended'))
    child.on('message', hear)
    child.once('exit', end)
  })
}

interface Place {
  readonly issuer: string
  readonly port: number
  readonly ca: string
  /** The client's, in PEM. */
  readonly key: string
}

function setup(base: string, { issuer, port, ca, key }: Place): Setup {
  writeFileSync(join(base, 'client.pem'), key, { mode: 0o600 })
  writeFileSync(join(base, 'ca.pem'), ca)
  const trust = `tls: { trust: { file: ${join(base, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  const targets = (more: (name: string, at: number) => string) =>
    TARGETS.map((name, at) => `  - { name: ${name}, ${more(name, at)} }\n`).join('')
  const id = 'spiffe://bench.holdfast.test/client'
  return {
    policy: {
      identity: `layer: identity
servers:
  - name: login
    issuer: ${issuer}
    client: { id: shop, auth: private_key_jwt, key: { file: ${join(base, 'client.pem')} } }
entries:
  - spiffe_id: ${id}
    selectors: [unix:uid:${process.getuid?.() ?? 0}]
    deliver: { x509: true, jwt: true, wit: false }
targets:
${targets((_name, at) => `server: login, resource: '${RESOURCES[at]}', scopes: [orders], custody: nothing, max_ttl: 5m`)}`,
      platform: `layer: platform
targets:
${targets(() => `origins: ['https://localhost:${port}'], ${trust}`)}servers:
  - { issuer: ${issuer}, ${trust} }
`,
      application: `layer: application
targets:
${targets(() => `grants: [{ callers: ['${id}'], methods: [GET, POST], paths: [/v1/**] }]`)}`,
    },
    config: 'egress: { socket: on }\n',
  }
}
