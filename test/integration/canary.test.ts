/** Marked secrets go in by every door; then everything that anybody else could read is searched for them. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash, createPrivateKey } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadServices, type Message } from '../../src/client/grpc.ts'
import { type BuiltAgent, HARDENED, ROOT, shownByKernel, startBuiltAgent } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import {
  answerOf,
  checkOnce,
  headOf,
  linesOf,
  openTry,
  outcomeOf,
  processOnce,
  setBy,
} from '../support/envoy-stream.ts'
import { RawClient } from '../support/raw-client.ts'
import { fetchSecrets, openSds, secretsIn } from '../support/sds.ts'
import { until } from '../support/until.ts'

const isRoot = process.getuid?.() === 0
const hasGcore = spawnSync('gcore', ['--help'], { stdio: 'ignore' }).error === undefined
const MARK = 'CANARYnonceCANARY'

describe('secrets', () => {
  let agent: BuiltAgent
  let folder: string
  let deliveredScalar: Buffer
  const secrets: string[] = [MARK]
  const errors: string[] = []

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-canary-'))
    writeFileSync(join(folder, 'config.yaml'), 'x', { mode: 0o600 })
    agent = await startBuiltAgent({
      nodeArgs: [...HARDENED, '--import', join(ROOT, 'test/support/canary-hook.mjs')],
      env: { CANARY_FOLDER: folder },
    })
    await useEveryDoor()
  })

  afterAll(async () => {
    await agent[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  async function useEveryDoor(): Promise<void> {
    const url = 'https://api.example.test/v1/items?secret=CANARYqueryCANARY'
    const { body } = await call(agent.socket, 'POST', '/v1/dpop', {
      body: { method: 'GET', url, nonce: MARK },
    })
    secrets.push(body.proof, 'CANARYqueryCANARY')
    for (const token of tokensFor(body.jkt)) {
      secrets.push(token)
      const members = { method: 'GET', url, access_token: token, nonce: MARK }
      const answers = [
        await call(agent.socket, 'POST', '/v1/dpop', { body: members }),
        await call(agent.socket, 'POST', '/v1/dpop', { body: { ...members, unknown: token } }),
        await call(agent.socket, 'POST', '/v1/dpop', { body: { ...members, method: token } }),
        await call(agent.socket, 'POST', '/v1/dpop', {
          body: { ...members, url: `https://other.example.test/${token}` },
        }),
        await call(agent.socket, 'POST', '/v1/proofs', {
          body: { requests: [{ kind: 'wpt', url, access_token: token, txn_token: token }] },
        }),
        await call(agent.socket, 'POST', '/v1/wpt', { body: { url, txn_token: token } }),
      ]
      for (const answer of answers) {
        if (answer.body.error) errors.push(JSON.stringify(answer.body))
        for (const result of [answer.body, ...(answer.body.results ?? [])]) {
          secrets.push(...[result.proof, result.wit].filter((value: unknown) => typeof value === 'string'))
        }
      }
    }
    await useEnvoy(url)
    await useWorkloadApi()
    await useSds()
    secrets.splice(0, secrets.length, ...new Set(secrets))
  }

  async function useEnvoy(url: string): Promise<void> {
    using client = new RawClient(agent.socket)
    const lines = linesOf(url, [
      ['authorization', `DPoP ${tokensFor('x')[0]}`],
      ['txn-token', 'CANARYtxntokenCANARY'],
    ])
    secrets.push('CANARYtxntokenCANARY')
    const stream = openTry(client)
    stream.send({ request_headers: headOf(lines) })
    const answers = [await answerOf(stream), await checkOnce(client, lines)]
    stream.send({
      response_headers: headOf([
        [':status', '401'],
        ['dpop-nonce', MARK],
      ]),
    })
    await stream.end()
    const other = linesOf('https://other.example.test/CANARYpathCANARY', lines.slice(4))
    secrets.push('CANARYpathCANARY')
    for (const refused of [await processOnce(client, other), await checkOnce(client, other)])
      errors.push(JSON.stringify(refused.immediate_response?.body.toString() ?? refused))
    for (const answer of answers) {
      expect(outcomeOf(answer)).toBe('signed')
      secrets.push(...Object.values(setBy(answer)))
    }
  }

  async function useWorkloadApi(): Promise<void> {
    const connection = await loadServices()(agent.socket)
    const first = (method: 'SpiffeWorkloadAPI/FetchX509SVID' | 'SpiffeWorkloadAPI/FetchWITSVID') =>
      new Promise<Message>((resolve, reject) => {
        const call = connection.open(
          method,
          {
            onMessage: (message) => {
              resolve(message)
              call.cancel()
            },
            onEnd: ({ fault }) => reject(fault),
          },
          {},
        )
      })
    const [x509] = (await first('SpiffeWorkloadAPI/FetchX509SVID'))['svids'] as readonly {
      x509_svid_key: Buffer
    }[]
    const key = createPrivateKey({
      key: x509?.x509_svid_key ?? Buffer.alloc(0),
      format: 'der',
      type: 'pkcs8',
    })
    deliveredScalar = Buffer.from(key.export({ format: 'jwk' }).d ?? '', 'base64url')
    const [wit] = (await first('SpiffeWorkloadAPI/FetchWITSVID'))['svids'] as readonly {
      wit_svid: string
      wit_svid_key: string
    }[]
    secrets.push(wit?.wit_svid ?? '', JSON.parse(wit?.wit_svid_key ?? '{}').d)
    const jwt = await connection.unary(
      'SpiffeWorkloadAPI/FetchJWTSVID',
      { audience: ['canary'] },
      { timeout: 5_000 },
    )
    for (const { svid } of jwt['svids'] as readonly { svid: string }[]) {
      secrets.push(svid)
      await connection.unary(
        'SpiffeWorkloadAPI/ValidateJWTSVID',
        { audience: 'canary', svid },
        { timeout: 5_000 },
      )
      await connection
        .unary('SpiffeWorkloadAPI/ValidateJWTSVID', { audience: 'other', svid }, { timeout: 5_000 })
        .catch((ending) => errors.push(ending.fault.message))
    }
    secrets.push(...encodings(deliveredScalar))
    connection.close()
  }

  /** A proxy that takes its key, and one that refuses it and says why. */
  async function useSds(): Promise<void> {
    using client = new RawClient(agent.socket)
    const unknown = 'CANARYnameCANARY'
    const streams = [openSds(client, ['default']), openSds(client, [unknown])]
    const answers = [await fetchSecrets(client, ['default']), await streams[0]?.message(1)]
    const { details } = (await streams[1]?.end()) ?? {}
    errors.push((details ?? '').replace(unknown, ''))
    for (const answer of answers) {
      const [{ key: pem = '' } = {}] = secretsIn(answer)
      const key = createPrivateKey(pem)
      const base64 = pem.replaceAll(/-----[^-]+-----|\n/g, '')
      secrets.push(
        base64,
        base64.slice(64, 128),
        ...encodings(Buffer.from(key.export({ format: 'jwk' }).d ?? '', 'base64url')),
      )
    }
    streams[0]?.ack('refused')
    await fetchSecrets(client, ['ROOTCA'])
  }

  it('were really used: tokens were proven and keys delivered', () => {
    expect(secrets.length).toBeGreaterThan(12)
    expect(secrets.every((secret) => secret.length > 10)).toBe(true)
  })

  it.each([
    ['the log', () => agent.output()],
    [
      'the audit log and every other file of the agent',
      () =>
        filesBelow(agent.dir)
          .map((file) => readFileSync(file, 'latin1'))
          .join('\n'),
    ],
    ['errors', () => errors.join('\n')],
    ['arguments and environment', () => shownByKernel(agent.pid)],
    ['the status', async () => JSON.stringify((await call(agent.adminSocket, 'GET', '/v1/status')).body)],
    [
      'the output of `holdfast status`',
      () =>
        execFileSync(process.execPath, ['dist/holdfast.js', 'status', '--dir', agent.dir], {
          cwd: ROOT,
          encoding: 'utf8',
        }),
    ],
  ])('are not in %s', async (_where, read) => {
    const text = await read()
    expect(text.length).toBeGreaterThan(0)
    expect(secrets.filter((secret) => text.includes(secret))).toEqual([])
  })

  it.skipIf(!isRoot || !hasGcore)(
    'private keys that the agent keeps are neither in a heap snapshot nor in a core',
    async () => {
      process.kill(agent.pid, 'SIGUSR2')
      await until('the heap snapshot', () => existsSync(join(folder, 'heap.done')), 120_000)
      execFileSync('gcore', ['-o', join(folder, 'core'), String(agent.pid)], { stdio: 'ignore' })
      process.kill(agent.pid, 'SIGUSR2')
      const scalars = await until('the keys', () => keysIn(join(folder, 'keys.json')), 10_000)
      expect(scalars.length).toBeGreaterThanOrEqual(5)
      const dumps = ['heap', `core.${agent.pid}`].map((name) => readFileSync(join(folder, name)))
      const hits = scalars.flatMap((hex) =>
        encodings(Buffer.from(hex, 'hex')).filter((form) =>
          dumps.some((dump) => dump.includes(Buffer.from(form, 'latin1'))),
        ),
      )
      expect(hits).toEqual([])
      // The search itself works: what Node keeps of a proof is found.
      expect(dumps.some((dump) => dump.includes(Buffer.from('spiffe://dev.holdfast.test')))).toBe(true)
    },
    // A snapshot and a core of the whole process, on a machine that may be busy.
    300_000,
  )

  it.skipIf(!isRoot)('cannot be read from its memory by a process of the same user', () => {
    expect(readFileSync(`/proc/${agent.pid}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/)
    // Not dumpable: the kernel gives the files of the process to root, whoever runs it.
    expect(statSync(`/proc/${agent.pid}/mem`).uid).toBe(0)
  })
})

/** Tokens as an authorization server might have issued them: bound to the key, to none, expired, not a JWT. */
function tokensFor(jkt: string): readonly string[] {
  const now = Math.floor(performance.timeOrigin / 1000)
  const make = (claims: object) =>
    `${encode({ alg: 'ES256' })}.${encode(claims)}.${createHash('sha256').update(JSON.stringify(claims)).digest('base64url')}`
  return [
    make({ exp: now + 120, cnf: { jkt }, note: 'CANARYboundCANARY' }),
    make({ exp: now + 120, note: 'CANARYbearerCANARY' }),
    make({ exp: now - 120, cnf: { jkt }, note: 'CANARYexpiredCANARY' }),
    'CANARYopaqueCANARYopaqueCANARY',
  ]
}

function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}

/** A scalar as bytes in both orders, base64url, base64 and hex, each as a latin1 string. */
function encodings(scalar: Buffer): readonly string[] {
  const reversed = Buffer.from(scalar).reverse()
  return [
    scalar.toString('latin1'),
    reversed.toString('latin1'),
    scalar.toString('base64url'),
    scalar.toString('base64'),
    scalar.toString('hex'),
  ]
}

function keysIn(file: string): readonly string[] | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}

function filesBelow(dir: string): readonly string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .map((name) => join(dir, name))
    .filter((path) => statSync(path).isFile())
}
