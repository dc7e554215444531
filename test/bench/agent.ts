/** The shipped agent as a child process on a directory of its own, with a configuration and policy as people write them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { cpuMicros, residentMb } from './meter.ts'

export interface BenchAgentOptions {
  /** Entries in all; the caller's is the last, the others are of other uids. */
  readonly entries?: number
  /** Keep the default limits instead of ones that a benchmark does not reach. */
  readonly defaultLimits?: boolean
  /** Flags of Node beside those of each agent. */
  readonly flags?: readonly string[]
  /** Policy by layer in place of one of its own, and more of the configuration, for an agent in the directory `base`. */
  readonly setup?: (base: string) => Setup
}

export interface Setup {
  readonly policy: Readonly<Record<'identity' | 'platform' | 'application', string>>
  readonly config: string
}

/** A started agent; `stop` ends it and removes its directory. */
export interface BenchAgent {
  readonly pid: number
  readonly socket: string
  /** Its egress door, where `setup` has turned it on. */
  readonly egress: string
  /** performance.now() at spawn. */
  readonly startedAt: number
  /** Throws when it has ended by itself. */
  check(): void
  /** CPU µs so far. */
  cpu(): number
  residentMb(): number
  /** Changes the hint of the caller's entry and asks the agent to read it. */
  changeHint(hint: string): void
  stop(): Promise<void>
}

/** Where the proofs go: a target without an authorization server that wants no token. */
export const TARGET_URL = 'https://api.example.test/orders/42'

const OTHER_UIDS = 200_000
const READY_WITHIN = 20_000

/** Spawns an agent and does not wait for it. */
export function spawnAgent(options: BenchAgentOptions = {}): BenchAgent {
  const base = mkdtempSync(join(tmpdir(), 'holdfast-bench-'))
  chmodSync(base, 0o755)
  const policy = join(base, 'policy')
  mkdirSync(policy)
  const write = (hint: string) =>
    writeFileSync(join(policy, 'identity.yaml'), identityText(options.entries ?? 1, hint))
  write('first')
  const setup = options.setup?.(base)
  const files = setup?.policy ?? { platform: PLATFORM, application: APPLICATION }
  for (const [layer, text] of Object.entries(files)) writeFileSync(join(policy, `${layer}.yaml`), text)
  const config = configText(options.defaultLimits ?? false) + (setup?.config ?? '')
  writeFileSync(join(base, 'holdfast.yaml'), config)
  const startedAt = performance.now()
  const child = spawn(
    process.execPath,
    [
      ...HARDENING,
      ...(options.flags ?? []),
      resolve('dist/holdfast.js'),
      'run',
      '--config',
      join(base, 'holdfast.yaml'),
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  const pid = child.pid ?? 0
  const ended = endOf(child, 'the agent')
  return {
    pid,
    socket: join(base, 'run', 'public', 'workload.sock'),
    egress: join(base, 'run', 'public', 'egress.sock'),
    startedAt,
    check: () => {
      if (child.exitCode !== null) throw new Error('the agent has ended; see above')
    },
    cpu: () => cpuMicros(pid),
    residentMb: () => residentMb(pid),
    changeHint: (hint) => {
      write(hint)
      child.kill('SIGHUP')
    },
    stop: async () => {
      child.kill('SIGKILL')
      await ended
      rmSync(base, { recursive: true, force: true })
    },
  }
}

/** An agent that has its socket. */
export async function startAgent(options: BenchAgentOptions = {}): Promise<BenchAgent> {
  const agent = spawnAgent(options)
  while (!existsSync(agent.socket)) {
    agent.check()
    if (performance.now() - agent.startedAt > READY_WITHIN) throw new Error('the agent has not started')
    await wait(10)
  }
  // Reflection and health are loaded after the socket answers.
  await wait(1_000)
  return agent
}

const HARDENING = ['--secure-heap=1048576', '--secure-heap-min=2']

/** Resolves at the end of `child`; what one said that ended by itself goes to stderr. */
export function endOf(child: ChildProcess, name: string): Promise<void> {
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4_096)
  })
  return new Promise((done) => {
    child.once('exit', (code, signal) => {
      if (signal !== 'SIGKILL') process.stderr.write(`${name} ended (${code ?? signal}):\n${said}\n`)
      done()
    })
  })
}

function configText(defaultLimits: boolean): string {
  const limits = `limits:
  connections_per_uid: 8192
  connections: 8192
  calls_per_uid: 65536
  calls: 65536
  streams_per_connection: 1000
  header_timeout: 30s
  proofs_per_second: 1000000
`
  return `trust_domain: bench.holdfast.test
dir: run
policy:
  files: [policy]
${defaultLimits ? '' : limits}`
}

function identityText(entries: number, hint: string): string {
  const others = Array.from(
    { length: entries - 1 },
    (_, index) => `  - spiffe_id: spiffe://bench.holdfast.test/service/${index}
    selectors: [unix:uid:${OTHER_UIDS + index}]
    deliver: { x509: true, jwt: true, wit: false }
`,
  )
  return `layer: identity
entries:
${others.join('')}  - spiffe_id: spiffe://bench.holdfast.test/client
    selectors: [unix:uid:${process.getuid?.() ?? 0}]
    hint: ${hint}
    deliver: { x509: true, jwt: true, wit: false }
targets:
  - name: example
    server: none
    custody: token
    hash_only: true
    tokenless: true
    binding: [dpop]
`
}

const PLATFORM = `layer: platform
targets:
  - name: example
    origins: ["https://api.example.test"]
`

const APPLICATION = `layer: application
targets:
  - name: example
    grants:
      - callers: ["spiffe://bench.holdfast.test/client"]
        methods: [GET, POST]
        paths: ["/orders/**"]
`
