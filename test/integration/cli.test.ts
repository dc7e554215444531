import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type BuiltAgent, ROOT, startBuiltAgent } from '../support/built-agent.ts'
import { until } from '../support/until.ts'

const isRoot = process.geteuid?.() === 0
/** Somebody without an entry in the development policy. */
const STRANGER = 12_345
const COMMAND = join(ROOT, 'dist', 'holdfast.js')

let agent: BuiltAgent
let dir: string
beforeAll(async () => {
  execFileSync(process.execPath, ['.setup.cjs'], { cwd: ROOT, stdio: 'inherit' })
  agent = await startBuiltAgent()
  dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true, force: true })
})

interface Ran {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

interface RunOptions {
  readonly uid?: number
  readonly input?: string
  readonly endpoint?: string
  readonly env?: Readonly<Record<string, string>>
}

/** Runs the built command; the environment names the agent's socket. */
function holdfast(args: readonly string[], options: RunOptions = {}): Ran {
  const { uid, input = '', endpoint = `unix://${agent.socket}`, env = {} } = options
  const ran = spawnSync(process.execPath, [COMMAND, ...args], {
    cwd: uid === undefined ? ROOT : '/',
    env: { PATH: process.env['PATH'] ?? '', SPIFFE_ENDPOINT_SOCKET: endpoint, ...env },
    input,
    encoding: 'utf8',
    timeout: 30_000,
    ...(uid === undefined ? {} : { uid, gid: uid }),
  })
  return { code: ran.status, out: ran.stdout, err: ran.stderr }
}

const API = 'https://api.example.test/orders'

describe('holdfast alone', () => {
  it('names the first three things to type', () => {
    const { code, out } = holdfast([])
    expect(code).toBe(0)
    for (const first of ['holdfast run --dev', 'holdfast fetch x509', 'holdfast proof GET'])
      expect(out).toContain(first)
  })
})

describe('each command, as text and as JSON', () => {
  const commands: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['status', ['status'], /^Holdfast .* is ready .*\n[\s\S]*IDENTITY[\s\S]*weak/],
    ['fetch x509', ['fetch', 'x509'], /^SPIFFE ID[\s\S]*spiffe:\/\/dev\.holdfast\.test\/user\//],
    ['fetch jwt', ['fetch', 'jwt', '--audience', 'orders'], /^eyJ[\w-]+\.[\w-]+\.[\w-]+\n$/],
    ['fetch bundle', ['fetch', 'bundle'], /^TRUST DOMAIN[\s\S]*dev\.holdfast\.test +1 +1/],
    ['fetch wit', ['fetch', 'wit'], /^SPIFFE ID[\s\S]*spiffe:\/\/dev\.holdfast\.test\/user\//],
    [
      'proof',
      ['proof', 'GET', API],
      /^curl -X GET -H 'DPoP: eyJ[\w.-]+' https:\/\/api\.example\.test\/orders\n$/,
    ],
    [
      'explain',
      ['explain', 'GET', API],
      /^allowed[\s\S]*facts +unix:uid:[\s\S]*entry[\s\S]*rule +.*application\.yaml:\d+\n/,
    ],
    ['wait', ['wait', '--identity'], /^spiffe:\/\/dev\.holdfast\.test\/user\//],
    [
      'check',
      ['check'],
      /^machine\n[\s\S]*agent\n[\s\S]*hardening\n[\s\S]*policy\n[\s\S]*authority\n[\s\S]*audit\n[\s\S]*clock\n[\s\S]* 0 failed\n$/,
    ],
    ['version', ['version'], /^holdfast \d[\s\S]*agent +\d/],
    ['policy check', ['policy', 'check'], /^valid: 4 files/],
    ['policy test', ['policy', 'test'], /0 failed\n$/],
    ['audit verify', ['audit', 'verify'], /^consistent, not anchored/],
    ['log level', ['log', 'level', 'info'], /^The agent logs from info on/],
  ]

  it.each(commands)('%s', (_name, args, text) => {
    const plain = holdfast(args)
    expect(plain).toMatchObject({ code: 0, err: '' })
    expect(plain.out).toMatch(text)
    const json = holdfast([...args, '-o', 'json'])
    expect(json).toMatchObject({ code: 0, err: '' })
    expect(JSON.parse(json.out)).toBeTypeOf('object')
  })

  it('explains another process to the operator', () => {
    const { code, out } = holdfast(['explain', 'GET', API, '--pid', String(process.pid), '-o', 'json'])
    expect([code, JSON.parse(out).allowed]).toEqual([0, true])
  })

  it.runIf(isRoot)('tells the operator why a process has no selectors', async () => {
    const unshare = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sleep', '300'])
    try {
      const children = `/proc/${unshare.pid}/task/${unshare.pid}/children`
      const pid = await until('the child', () => readFileSync(children, 'utf8').trim())
      const { code, out } = holdfast(['explain', 'GET', API, '--pid', pid])
      expect(code).toBe(4)
      expect(out).toMatch(/facts of \d+ +no selectors[^\n]*\n +note +[^\n]*container/)
      const json = holdfast(['explain', 'GET', API, '--pid', pid, '-o', 'json'])
      expect(JSON.parse(json.out).notes).toEqual([expect.stringContaining('container')])
    } finally {
      unshare.kill('SIGKILL')
    }
  })

  it.each(['bash', 'zsh', 'fish'])('completion for %s', (shell) => {
    expect(holdfast(['completion', shell])).toMatchObject({ code: 0, err: '' })
  })

  it('completes for bash what bash can read', () => {
    const script = `${holdfast(['completion', 'bash']).out}
COMP_WORDS=(holdfast fetch jwt --aud); COMP_CWORD=3; _holdfast; echo "\${COMPREPLY[@]}"`
    expect(execFileSync('bash', ['-c', script], { encoding: 'utf8' })).toBe('--audience\n')
  })
})

describe('fetch --write', () => {
  it('stores what openssl accepts, and the key for this user alone', () => {
    const at = join(dir, 'x509')
    const { code, out } = holdfast(['fetch', 'x509', '--write', at])
    expect(code).toBe(0)
    expect(out).not.toContain('PRIVATE KEY')
    const verified = execFileSync(
      'openssl',
      ['verify', '-x509_strict', '-CAfile', join(at, 'bundle.pem'), join(at, 'svid.pem')],
      { encoding: 'utf8' },
    )
    expect(verified).toContain(': OK')
    expect(statSync(join(at, 'key.pem')).mode & 0o777).toBe(0o600)
    const publicKey = (args: readonly string[]) => execFileSync('openssl', args, { encoding: 'utf8' })
    expect(publicKey(['pkey', '-in', join(at, 'key.pem'), '-pubout'])).toBe(
      publicKey(['x509', '-in', join(at, 'svid.pem'), '-noout', '-pubkey']),
    )
  })

  it('is the only way for a private key to leave', () => {
    for (const kind of ['x509', 'wit']) {
      const { out } = holdfast(['fetch', kind, '-o', 'json'])
      expect(out).not.toMatch(/PRIVATE KEY|"d"/)
    }
  })
})

describe('exit codes', () => {
  it('are 0 for success and 1 for a failed check', () => {
    expect(holdfast(['check', '--pre', '--dir', join(dir, 'new')]).code).toBe(0)
    expect(holdfast(['check', '--dir', join(dir, 'none')]).code).toBe(1)
    // The development policy is weak, and says so.
    expect(holdfast(['check', '--fail-on', 'warn', '-o', 'short']).code).toBe(1)
    expect(holdfast(['policy', 'check', '--fail-on', 'warn']).code).toBe(1)
  })

  it('is 1 for an audit log that was edited', () => {
    const file = join(dir, 'audit.jsonl')
    writeFileSync(
      file,
      readFileSync(join(agent.dir, 'private', 'audit.jsonl'), 'utf8').replace(
        '"allowed":true',
        '"allowed":false',
      ),
    )
    const { code, out } = holdfast(['audit', 'verify', file])
    expect(code).toBe(1)
    expect(out).toMatch(/^broken/)
  })

  it.each([
    ['an unknown command', ['statsu'], 'did you mean "status"?'],
    ['an unknown option', ['status', '--wach'], 'did you mean "--watch"?'],
    ['a URL that cannot be signed', ['proof', 'GET', 'https://api.example.test/../x'], 'dot segment'],
    ['a file that is not there', ['policy', 'check', '/nonexistent.yaml'], ''],
    [
      'a token among the arguments',
      ['proof', 'GET', API, '--nonce', 'eyJhbGciOiJFUzI1NiJ9.e30.c'],
      'looks like a token',
    ],
  ])('is 2 for %s', (_what, args, said) => {
    const { code, err } = holdfast(args)
    expect(code).toBe(2)
    expect(err).toContain(said)
    expect(err).not.toContain('eyJ')
  })

  it.each(['status', 'fetch x509', 'proof GET https://api.example.test/', 'drain', 'wait --timeout 1s'])(
    'is 3 for %s without an agent, and every place that was tried is named',
    (line) => {
      const endpoint = `unix://${dir}/none/public/workload.sock`
      const { code, err } = holdfast(line.split(' '), { endpoint })
      expect(code).toBe(3)
      expect(err).toMatch(
        new RegExp(`why {2}${dir}/none/(public|private)/(workload|admin)\\.sock .*: does not exist`),
      )
      expect(err).toContain('agent_unreachable  https://holdfast.dev/reasons#agent_unreachable')
    },
  )

  it('is 4 for what policy refuses, said in JSON when that is asked for', () => {
    const args = ['proof', 'GET', 'https://nowhere.test/']
    expect(holdfast(args).code).toBe(4)
    const { code, out, err } = holdfast([...args, '-o', 'json'])
    expect([code, err]).toEqual([4, ''])
    expect(JSON.parse(out).error).toMatchObject({ reason: 'target_unknown', owner: 'platform' })
    expect(holdfast(['explain', 'GET', 'https://nowhere.test/']).code).toBe(4)
  })

  it.runIf(isRoot)('is 4 for a user without identity and at the admin door, and says whose it is', () => {
    const asStranger = { uid: STRANGER }
    expect(holdfast(['fetch', 'x509'], asStranger)).toMatchObject({ code: 4, out: '' })
    expect(holdfast(['wait', '--identity', '--timeout', '1s'], asStranger).code).toBe(4)
    expect(holdfast(['wait'], asStranger).code).toBe(0)
    expect(holdfast(['explain', 'GET', API], asStranger).out).toMatch(
      /^refused: no identity issued\n[\s\S]*unix:uid:12345/,
    )
    const { code, err } = holdfast(['status'], asStranger)
    expect(code).toBe(4)
    expect(err).toContain('is closed to uid 12345: it belongs to uid 0')
    expect(holdfast(['check'], asStranger).out).toContain('- the admin socket')
  })
})

describe('secrets', () => {
  // Not bound to a key of this caller: the agent refuses it.
  const TOKEN = `eyJhbGciOiJFUzI1NiJ9.${Buffer.from('{"sub":"canary"}').toString('base64url')}.c2lnbmF0dXJl`

  it('appear in no output when a token is refused', () => {
    for (const form of ['text', 'json']) {
      const { code, out, err } = holdfast(['proof', 'GET', API, '--token-file', '-', '-o', form], {
        input: TOKEN,
      })
      expect(code).toBe(4)
      expect(out + err).not.toContain(TOKEN.slice(0, 20))
    }
  })
})

describe('colours', () => {
  it('are left out where nobody sees them', () => {
    for (const args of [['status'], ['check'], ['nonsense']]) {
      const { out, err } = holdfast(args)
      expect(out + err).not.toContain('\u001b')
    }
  })
})

describe('watch', () => {
  it('shows decisions as they are made, and ends with 0 on Ctrl-C', async () => {
    const child = spawn(process.execPath, [COMMAND, 'watch', '--deny', '--dir', agent.dir], { cwd: ROOT })
    let shown = ''
    child.stdout.on('data', (chunk) => (shown += chunk))
    // The first refusals may come before the watcher is there.
    await until('a decision', () => {
      holdfast(['proof', 'GET', 'https://nowhere.test/'])
      holdfast(['proof', 'GET', API])
      return shown.includes('\n')
    })
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGINT')
    expect(await ended).toBe(0)
    for (const line of shown.trim().split('\n')) {
      expect(line).toMatch(/^\d\d:\d\d:\d\d {2}deny {3}sign\.dpop .*target_unknown .*https:\/\/nowhere\.test/)
      expect(line).not.toContain('eyJ')
    }
  })
})

describe('revoke', () => {
  it('refuses at once, says what lives on, and is lifted', () => {
    const [id = ''] = holdfast(['wait', '--identity']).out.trim().split('\n')
    const revoked = holdfast(['revoke', '--spiffe-id', id, '--for', '1h'])
    expect(revoked.code).toBe(0)
    expect(revoked.out).toMatch(/^Revoked spiffe id .* until .*[\s\S]*X\.509-SVIDs that were delivered +20/)
    expect(holdfast(['fetch', 'x509'])).toMatchObject({ code: 4 })
    expect(holdfast(['status']).out).toMatch(/REVOKED[\s\S]*in 59m|REVOKED[\s\S]*in 1h/)
    expect(holdfast(['revoke', '--lift', '--spiffe-id', id]).code).toBe(0)
    expect(holdfast(['fetch', 'x509']).code).toBe(0)
    expect(holdfast(['revoke', '--lift', '--spiffe-id', id]).code).toBe(2)
  })

  it('answers in JSON', () => {
    const { code, out } = holdfast(['revoke', '--target', 'loopback', '--for', '1s', '-o', 'json'])
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({ rule: { kind: 'target', value: 'loopback' } })
  })
})

describe('init, check, run, drain', () => {
  it('lead from nothing to an agent and to its end', async () => {
    const at = join(dir, 'estate')
    const config = join(at, 'holdfast.yaml')
    const made = holdfast(['init', '--dir', at, '--trust-domain', 'example.org'])
    expect(made.code).toBe(0)
    expect(made.out).toContain(`holdfast run --config ${config}`)
    expect(holdfast(['check', '--pre', '--config', config, '--dir', join(dir, 'run')]).code).toBe(0)
    expect(holdfast(['policy', 'test', '--config', config]).code).toBe(0)
    await using other = await startBuiltAgent({ args: ['--config', config] })
    expect(holdfast(['wait', '--identity', '--dir', other.dir]).out).toMatch(/^spiffe:\/\/example\.org\//)
    const drained = holdfast(['drain', '--dir', other.dir])
    expect(drained).toMatchObject({ code: 0, err: '' })
    expect(holdfast(['wait', '--dir', other.dir, '--timeout', '1s']).code).toBe(3)
  })
})
