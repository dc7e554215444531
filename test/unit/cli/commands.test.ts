import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { explain } from '../../../src/cli/explain.ts'
import { init } from '../../../src/cli/init.ts'
import { drain, setLogLevel } from '../../../src/cli/operate.ts'
import { checkFiles, testFiles } from '../../../src/cli/policy.ts'
import { curlText, proof, readToken } from '../../../src/cli/proof.ts'
import { revoke } from '../../../src/cli/revoke.ts'
import { status } from '../../../src/cli/status.ts'
import { version } from '../../../src/cli/version.ts'
import { wait } from '../../../src/cli/wait.ts'
import { watch } from '../../../src/cli/watch.ts'
import { AGENT_STATUS } from '../../support/agent-status.ts'
import { keptIo, NOW } from '../../support/io.ts'
import { type JsonAgent, refusal, startJsonAgent } from '../../support/json-agent.ts'

let agent: JsonAgent
let dir: string
beforeEach(async () => {
  agent = await startJsonAgent()
  dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
})
afterEach(async () => {
  await agent[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true, force: true })
})

async function faultOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  )
  if (error instanceof Fault) return `${error.reason}: ${error.message}`
  throw new Error(`no Fault but ${String(error)}`)
}

describe('proof', () => {
  const ANSWER = { proof: 'a.b.c', jkt: 'k', jti: 'j', iat: NOW }
  beforeEach(() => {
    agent.routes['POST /v1/dpop'] = ANSWER
  })

  it('asks for one request and writes a command that sends it', async () => {
    const io = keptIo()
    expect(await proof('GET', 'https://api.example.test/a?b=c', { dir: agent.dir }, io)).toBe(0)
    expect(agent.asked[0]?.body).toEqual({ method: 'GET', url: 'https://api.example.test/a?b=c' })
    expect(io.written.out).toBe("curl -X GET -H 'DPoP: a.b.c' 'https://api.example.test/a?b=c'\n")
  })

  it('hands over nonce, key and identity', async () => {
    const options = { dir: agent.dir, nonce: 'n', jkt: 'k', spiffeId: 'spiffe://a.test/b', header: true }
    const io = keptIo()
    await proof('POST', 'https://api.example.test/', options, io)
    expect(agent.asked[0]?.body).toMatchObject({ nonce: 'n', jkt: 'k', spiffe_id: 'spiffe://a.test/b' })
    expect(io.written.out).toBe('DPoP: a.b.c\n')
  })

  it.each([['text'], ['json']] as const)(
    'takes the token from a file and never writes it (%s)',
    async (output) => {
      const tokenFile = join(dir, 'token')
      writeFileSync(tokenFile, 'the.secret.token\n')
      const io = keptIo()
      await proof('GET', 'https://api.example.test/', { dir: agent.dir, tokenFile, output }, io)
      expect(agent.asked[0]?.body).toMatchObject({ access_token: 'the.secret.token' })
      expect(io.written.out + io.written.err).not.toContain('the.secret.token')
    },
  )

  it('takes the token from standard input', async () => {
    const options = { dir: agent.dir, tokenFile: '-' }
    await proof('GET', 'https://api.example.test/', options, keptIo({ input: 'from.standard.input\n' }))
    expect(agent.asked[0]?.body).toMatchObject({ access_token: 'from.standard.input' })
  })

  it.each([
    ['nothing', ''],
    ['two words', 'a b'],
    ['a control character', 'a\u0000b'],
    ['too much', 'x'.repeat(20_000)],
  ])('refuses a token file with %s and does not quote it', async (_what, input) => {
    expect(await faultOf(readToken('-', keptIo({ input })))).toBe(
      'usage: standard input holds no access token of 1 to 16384 characters',
    )
  })

  it('names a token file that cannot be read', async () => {
    expect(await faultOf(readToken(join(dir, 'none'), keptIo()))).toBe(`usage: ${dir}/none: cannot be read`)
  })
})

describe('curlText', () => {
  it('keeps the token out of the arguments of curl', () => {
    expect(curlText('GET', 'https://a.test/', 'p', 'my token')).toBe(
      `printf 'Authorization: DPoP %s' "$(cat 'my token')" | curl -X GET -H 'DPoP: p' -H @- https://a.test/`,
    )
  })

  it.each([
    ["https://a.test/'$(id)'", `'https://a.test/'\\''$(id)'\\'''`],
    ['https://a.test/`id`', "'https://a.test/`id`'"],
    ['https://a.test/;id', "'https://a.test/;id'"],
    ['https://a.test/a b', "'https://a.test/a b'"],
  ])('makes one word of %s', (url, word) => {
    expect(curlText('GET', url, 'p', undefined).endsWith(` ${word}`)).toBe(true)
  })

  it('asks for a head with -I, since curl would wait for a body', () => {
    expect(curlText('HEAD', 'https://a.test/', 'p', undefined)).toMatch(/^curl -I /)
  })
})

describe('wait', () => {
  const WITH = { trust_domain: 'a.test', identities: [{ spiffe_id: 'spiffe://a.test/x', hint: '' }] }

  it('returns as soon as there is an identity', async () => {
    let count = 0
    agent.routes['GET /v1/identity'] = (response) => {
      count += 1
      const refuse = refusal(count === 1 ? 'not_ready' : 'no_identity', 503)
      if (count < 4 && typeof refuse === 'function') refuse(response)
      else response.end(JSON.stringify(WITH))
    }
    const io = keptIo()
    expect(await wait({ dir: agent.dir, identity: true }, io)).toBe(0)
    expect(io.written.out).toBe('spiffe://a.test/x\n')
    expect(count).toBe(4)
  })

  it('throws the last refusal after the timeout', async () => {
    agent.routes['GET /v1/identity'] = refusal('no_identity', 403)
    const io = keptIo()
    expect(await faultOf(wait({ dir: agent.dir, identity: true, timeout: '5s' }, io))).toMatch(
      /^no_identity:/,
    )
    expect(io.now()).toBeGreaterThanOrEqual(NOW + 5)
  })

  it('is content with an agent that answers, unless an identity is wanted', async () => {
    agent.routes['GET /v1/identity'] = refusal('no_identity', 403)
    expect(await wait({ dir: agent.dir }, keptIo())).toBe(0)
  })

  it('waits for an agent that is not there yet', async () => {
    expect(await faultOf(wait({ dir, timeout: '2s' }, keptIo()))).toMatch(/^agent_unreachable:/)
  })

  it.each([
    ['a timeout that is none', { timeout: '2 s' }, /^usage: --timeout/],
    ['a socket that is none', { socket: 'tcp://127.0.0.1:1' }, /^invalid_request: --socket names/],
  ])('does not wait for %s to get better', async (_what, options, said) => {
    const io = keptIo()
    expect(await faultOf(wait(options, io))).toMatch(said)
    expect(io.now()).toBe(NOW)
  })
})

describe('status', () => {
  it('answers in JSON as the agent does', async () => {
    agent.routes['GET /v1/status'] = AGENT_STATUS
    const io = keptIo()
    expect(await status({ dir: agent.dir, output: 'json' }, io)).toBe(0)
    expect(JSON.parse(io.written.out)).toEqual(AGENT_STATUS)
  })

  it('draws anew until Ctrl-C on a terminal', async () => {
    const io = keptIo({ isTerminal: true })
    let count = 0
    agent.routes['GET /v1/status'] = (response) => {
      count += 1
      if (count === 3) io.stop()
      response.end(JSON.stringify(AGENT_STATUS))
    }
    expect(await status({ dir: agent.dir, watch: true }, io)).toBe(0)
    expect(io.written.out.split('\u001b[2J')).toHaveLength(4)
  })
})

describe('explain', () => {
  const FOUND = { allowed: false, selectors: [], origin: 'https://a.test', path: '/', policy: 'p' }

  it('asks the workload door for oneself and the admin door for a pid', async () => {
    agent.routes['POST /v1/explain'] = FOUND
    expect(await explain('GET', 'https://a.test/', { dir: agent.dir }, keptIo())).toBe(4)
    expect(await explain('GET', 'https://a.test/', { dir: agent.dir, pid: 7 }, keptIo())).toBe(4)
    expect(agent.asked.map(({ body }) => body)).toEqual([
      { method: 'GET', url: 'https://a.test/' },
      { method: 'GET', url: 'https://a.test/', pid: 7 },
    ])
  })

  it('ends with 0 when the request would be allowed', async () => {
    agent.routes['POST /v1/explain'] = { ...FOUND, allowed: true }
    expect(await explain('GET', 'https://a.test/', { dir: agent.dir }, keptIo())).toBe(0)
  })
})

describe('watch', () => {
  const LINES = [
    { ts: '2026-03-01T12:00:00Z', seq: 1, event: 'sign.dpop', allowed: true, spiffe_id: 'spiffe://a.test/x' },
    {
      ts: '2026-03-01T12:00:01Z',
      seq: 2,
      event: 'sign.dpop',
      allowed: false,
      reason: 'policy_denied',
      spiffe_id: 'spiffe://a.test/y',
    },
    {
      ts: '2026-03-01T12:00:02Z',
      seq: 3,
      event: 'sign.dpop',
      allowed: true,
      observed: 'policy_denied',
      spiffe_id: 'spiffe://a.test/x',
    },
  ]

  it.each([
    ['everything', {}, [1, 2, 3]],
    ['refusals, observed ones included', { deny: true }, [2, 3]],
    ['one identity', { spiffeId: 'spiffe://a.test/x' }, [1, 3]],
  ])('shows %s and tells when the agent ends', async (_what, options, seqs) => {
    agent.routes['GET /v1/decisions'] = (response) =>
      response.end(LINES.map((line) => `${JSON.stringify(line)}\n`).join(''))
    const io = keptIo()
    const said = await faultOf(watch({ dir: agent.dir, output: 'json', ...options }, io))
    expect(said).toBe('agent_unreachable: the agent ended while its decisions were watched')
    const shown = io.written.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).seq)
    expect(shown).toEqual(seqs)
  })
})

describe('revoke', () => {
  const RULE = { kind: 'jkt', value: 'k', since: NOW }

  it.each([
    [{ spiffeId: 'spiffe://a.test/x' }, { spiffe_id: 'spiffe://a.test/x' }],
    [
      { jkt: 'k', for: '1h' },
      { jkt: 'k', seconds: 3600 },
    ],
    [{ pid: 7 }, { pid: 7 }],
    [{ target: 'orders' }, { target: 'orders' }],
  ])('sends %j', async (options, body) => {
    agent.routes['POST /v1/revoke'] = {
      rule: RULE,
      keys_destroyed: 0,
      connections_ended: 0,
      lives_elsewhere: [],
    }
    expect(await revoke({ dir: agent.dir, ...options }, keptIo())).toBe(0)
    expect(agent.asked[0]?.body).toEqual(body)
  })

  it.each([
    [{}, 'usage: nothing is named'],
    [{ jkt: 'k', pid: 7 }, 'usage: more than one thing is named'],
    [{ jkt: 'k', for: 'ever' }, 'usage: --for is "ever", wanted a duration such as 90s, 5m, 1h or 7d'],
    [{ jkt: 'k', lift: true, for: '1h' }, 'usage: --for and --lift exclude each other'],
  ])('asks nothing of the agent for %j', async (options, said) => {
    expect(await faultOf(revoke({ dir: agent.dir, ...options }, keptIo()))).toBe(said)
    expect(agent.asked).toEqual([])
  })

  it('lifts, and says it when there was nothing to lift', async () => {
    agent.routes['POST /v1/lift'] = { lifted: { kind: 'jkt', value: 'k' } }
    expect(await revoke({ dir: agent.dir, jkt: 'k', lift: true }, keptIo())).toBe(0)
    agent.routes['POST /v1/lift'] = refusal('not_found', 404)
    expect(await faultOf(revoke({ dir: agent.dir, jkt: 'k', lift: true }, keptIo()))).toBe(
      'usage: jkt k is not revoked',
    )
  })
})

describe('drain and log level', () => {
  it('send what they are named for', async () => {
    agent.routes['POST /v1/drain'] = { draining: true }
    agent.routes['POST /v1/log-level'] = { level: 'debug' }
    const io = keptIo()
    expect(await drain({ dir: agent.dir }, io)).toBe(0)
    expect(await setLogLevel('debug', { dir: agent.dir }, io)).toBe(0)
    expect(agent.asked.map(({ route, body }) => [route, body])).toEqual([
      ['POST /v1/drain', {}],
      ['POST /v1/log-level', { level: 'debug' }],
    ])
  })
})

describe('version', () => {
  it('names the agent’s where one answers, and does not fail where none does', async () => {
    agent.routes['GET /v1/status'] = AGENT_STATUS
    const io = keptIo()
    expect(await version({ dir: agent.dir, output: 'json' }, io)).toBe(0)
    expect(JSON.parse(io.written.out)).toMatchObject({
      version: '1.2.3',
      agent: '1.2.3',
      node: process.versions.node,
    })
    const other = keptIo()
    expect(await version({ dir, output: 'json' }, other)).toBe(0)
    expect(JSON.parse(other.written.out)).not.toHaveProperty('agent')
  })
})

describe('init', () => {
  it('writes files that check and test clean, closed to others', async () => {
    const at = join(dir, 'new')
    expect(await init({ dir: at, trustDomain: 'example.org' }, keptIo())).toBe(0)
    expect(readFileSync(join(at, 'holdfast.yaml'), 'utf8')).toContain('trust_domain: example.org\n')
    expect(readdirSync(join(at, 'policy')).sort()).toEqual([
      'application.yaml',
      'identity.yaml',
      'platform.yaml',
      'security.yaml',
    ])
    expect(statSync(join(at, 'policy', 'identity.yaml')).mode & 0o022).toBe(0)
    for (const [file, schema] of [
      ['holdfast.yaml', 'holdfast.schema.json'],
      ['policy/identity.yaml', '../policy.schema.json'],
    ] as const) {
      const [line] = readFileSync(join(at, file), 'utf8').split('\n')
      expect(line).toBe(`# yaml-language-server: $schema=${schema}`)
      const text = readFileSync(join(at, file, '..', schema), 'utf8')
      expect(JSON.parse(text)).toHaveProperty('$schema')
    }
    const config = join(at, 'holdfast.yaml')
    expect(await checkFiles([], { config }, keptIo())).toBe(0)
    expect(await testFiles([], { config }, keptIo())).toBe(0)
  })

  it('gives the caller of sudo an identity too', async () => {
    await init({ dir: join(dir, 'new') }, keptIo({ environment: { sudoUid: '4242' } }))
    expect(readFileSync(join(dir, 'new', 'policy', 'identity.yaml'), 'utf8')).toContain('unix:uid:4242')
  })

  it('touches nothing that exists', async () => {
    writeFileSync(join(dir, 'holdfast.yaml'), 'mine')
    expect(await faultOf(init({ dir }, keptIo()))).toBe(`usage: ${dir}/holdfast.yaml exists`)
    expect(readFileSync(join(dir, 'holdfast.yaml'), 'utf8')).toBe('mine')
    expect(readdirSync(dir)).toEqual(['holdfast.yaml'])
  })

  it.each(['Example.org', 'a b', ''])('refuses the trust domain %j', async (trustDomain) => {
    expect(await faultOf(init({ dir: join(dir, 'new'), trustDomain }, keptIo()))).toMatch(
      /^spiffe_id_invalid:/,
    )
  })
})

describe('policy', () => {
  const IDENTITY =
    'layer: identity\nentries:\n  - spiffe_id: spiffe://example.org/api\n    selectors: [unix:uid:1]\n    deliver: { x509: true, jwt: false, wit: false }\n'

  it('checks single files by the trust domain that they name', async () => {
    const file = join(dir, 'identity.yaml')
    writeFileSync(file, IDENTITY)
    const io = keptIo()
    expect(await checkFiles([file], {}, io)).toBe(0)
    expect(io.written.out).toMatch(/^valid: 1 file, 1 entry, 0 targets/)
    expect(await checkFiles([file], { failOn: 'warn' }, keptIo())).toBe(1)
  })

  it('ends with 2 and the line for a file that does not load', async () => {
    const file = join(dir, 'identity.yaml')
    writeFileSync(file, IDENTITY.replace('entries', 'entris'))
    const io = keptIo()
    expect(await checkFiles([file], {}, io)).toBe(2)
    expect(io.written.out).toContain(`${file}:2: unknown key "entris", did you mean "entries"?`)
    expect(await faultOf(testFiles([file], {}, keptIo()))).toMatch(/^policy_invalid:/)
  })

  it('ends with 1 for a test that fails', async () => {
    const file = join(dir, 'application.yaml')
    const test =
      'layer: application\ntests:\n  - { name: x, spiffe_id: spiffe://example.org/api, method: GET, url: https://a.test/, expect: allow }\n'
    writeFileSync(file, test)
    const io = keptIo()
    expect(await testFiles([file], { output: 'json', trustDomain: 'example.org' }, io)).toBe(1)
    expect(JSON.parse(io.written.out)).toMatchObject({
      passed: false,
      results: [{ name: 'x', passed: false }],
    })
  })
})
