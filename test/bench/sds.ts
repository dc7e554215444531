/** SDS with the real Envoy: how soon what is new is in use, what a rotation costs, and how 200 proxies come back. */
import { connect } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { startBuiltAgent } from '../support/built-agent.ts'
import { hasEnvoy } from '../support/envoy.ts'
import { ask, type MtlsEnvoy, startMtlsClient, startMtlsServer } from '../support/envoy-mtls.ts'
import { RawClient } from '../support/raw-client.ts'
import { openSds, type SdsStream } from '../support/sds.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'

const DOMAIN = 'dev.holdfast.test'
const SERVER = `spiffe://${DOMAIN}/server`
const CLIENT = `spiffe://${DOMAIN}/client`
const ROTATIONS = 8
const ENVOYS = 2
const CONNECTIONS = 8
const PROXIES = 200
const OTHER_UID = 4_000_000
/** Envoy's back-off of a stream: jittered, doubling, capped (base_interval 500 ms, max_interval 30 s). */
const BASE = 500
const CAP = 30_000
const PATIENCE = 60_000

/** A change of `ttl` is a new SVID of each. */
function policyOf(ttl: number, uid = process.getuid?.() ?? 0): Readonly<Record<string, string>> {
  const entries = [SERVER, CLIENT].map(
    (id) =>
      `  - { spiffe_id: '${id}', selectors: ['unix:uid:${uid}'], x509_ttl: ${ttl}s, deliver: { x509: true, jwt: false, wit: false } }\n`,
  )
  return { 'identity.yaml': `layer: identity\nentries:\n${entries.join('')}` }
}

export async function measureSds({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const back = await measureReturn()
  if (!hasEnvoy) {
    const note = 'Envoy needs python3-venv'
    const names = ['sds_ack_ms', 'sds_late_ms', 'sds_rotation_rps', 'sds_rotation_lost'] as const
    return [...names.map((name) => ({ name, value: undefined, note })), back]
  }
  return [...(await measureRotations(quick)), await measureLate(), back]
}

/** Rotations below traffic between two Envoys, and how long each Envoy takes to say that it has the new certificate. */
async function measureRotations(quick: boolean): Promise<readonly Measured[]> {
  await using agent = await startAgent({ policy: policyOf(3_600) })
  const acks = timeAcks(agent)
  await using server = await startMtlsServer({ socket: agent.socket, certificate: SERVER, direct: true })
  await using client = await startMtlsClient({
    socket: agent.socket,
    certificate: CLIENT,
    port: server.port,
    server: SERVER,
  })
  await until(async () => (await ask(client.port)).status === 200)
  const load = startLoad(client.port)
  const start = performance.now()
  for (let turn = 1; turn <= ROTATIONS; turn += 1) {
    await wait(quick ? 400 : 1_250)
    await agent.setPolicy(policyOf(3_600 + turn))
  }
  await wait(400)
  const { good, bad } = await load.stop()
  const rate = good / ((performance.now() - start) / 1_000)
  // Without traffic on the two cores: what a push takes, not what a busy machine does.
  const times: number[] = []
  for (let turn = 0; turn < (quick ? 20 : 60); turn += 1) {
    acks.begin()
    await agent.setPolicy(policyOf(4_000 + turn))
    await until(() => acks.times.length === ENVOYS)
    times.push(...acks.times)
  }
  const [made = 0, opened = 0] = [
    await count(server, /^listener\.127.*\.ssl\.handshake$/),
    await count(client, /^cluster\.api\.upstream_cx_total$/),
  ]
  return [
    { name: 'sds_ack_ms', value: median(times), note: `${times.length} pushes` },
    { name: 'sds_rotation_rps', value: rate },
    {
      name: 'sds_rotation_lost',
      value: bad + Math.abs(made - opened),
      note: `${good} of status 200, ${bad} others, ${made} handshakes, ${opened} connections`,
    },
  ]
}

/** Times from a message with secrets to the word that it is taken, since `begin`: each Envoy is told once. */
function timeAcks({ metrics }: TestAgent) {
  const [times, open]: [number[], number[]] = [[], []]
  const { count } = metrics
  Object.assign(metrics, {
    count: (...[name, labels, by]: Parameters<typeof count>) => {
      count(name, labels, by)
      if (name !== 'holdfast_sds_total') return
      if (labels?.['outcome'] === 'sent') open.push(performance.now())
      else times.push(performance.now() - (open.shift() ?? 0))
    },
  })
  const begin = () => {
    times.length = 0
    open.length = 0
  }
  return { times, begin }
}

/** From the load of the entry to the first 200 between Envoys that have waited for it. */
async function measureLate(): Promise<Measured> {
  await using agent = await startAgent({ policy: policyOf(3_600, OTHER_UID) })
  const { socket } = agent
  await using server = await startMtlsServer({ socket, certificate: SERVER, direct: true, early: true })
  const at = { socket, certificate: CLIENT, port: server.port, server: SERVER }
  await using client = await startMtlsClient({ ...at, early: true })
  await wait(3_000)
  await agent.setPolicy(policyOf(3_600))
  const start = performance.now()
  await until(async () => (await ask(client.port).catch(() => undefined))?.status === 200)
  return { name: 'sds_late_ms', value: performance.now() - start }
}

/** 200 proxies at an agent that is ended and started again: how much later than its own back-off the last one is back. */
async function measureReturn(): Promise<Measured> {
  let agent = await startBuiltAgent()
  const { dir } = agent
  try {
    const proxies = Array.from({ length: PROXIES }, () => new Proxy200(agent.socket))
    await until(() => proxies.every(({ served }) => served === 1))
    await agent.stop()
    agent = await startBuiltAgent({ dir })
    const up = performance.now()
    await until(() => proxies.every(({ served }) => served >= 2))
    const late = proxies.map(({ answeredAt, triedAt }) => answeredAt - Math.max(triedAt, up))
    for (const proxy of proxies) proxy.stop()
    const whole = Math.max(...proxies.map(({ answeredAt }) => answeredAt - up))
    const note = `the last was back ${Math.round(whole)} ms after the agent, its back-off included`
    return { name: 'sds_return_ms', value: Math.max(...late), note }
  } finally {
    await agent.stop('SIGKILL')
  }
}

/** A stream that comes back as Envoy's do. */
class Proxy200 {
  readonly #socket: string
  #failures = 0
  #isOver = false
  #client: RawClient | undefined
  served = 0
  triedAt = 0
  answeredAt = 0

  constructor(socket: string) {
    this.#socket = socket
    this.#try()
  }

  stop(): void {
    this.#isOver = true
    this.#client?.[Symbol.dispose]()
  }

  #try(): void {
    if (this.#isOver) return
    this.triedAt = performance.now()
    const client = new RawClient(this.#socket)
    this.#client = client
    void this.#follow(openSds(client, ['default'])).then(() => {
      client[Symbol.dispose]()
      const ceiling = Math.min(CAP, BASE * 2 ** this.#failures)
      this.#failures += 1
      setTimeout(() => this.#try(), Math.random() * ceiling)
    })
  }

  async #follow(stream: SdsStream): Promise<void> {
    while (!stream.ending && stream.messages.length === 0) await wait(5)
    if (stream.messages.length > 0) {
      this.served += 1
      this.answeredAt = performance.now()
      this.#failures = 0
      stream.ack()
    }
    while (!stream.ending && !this.#isOver) await wait(20)
  }
}

/** Requests on kept connections with as little of our own CPU as can be: the machine is the Envoys'. */
function startLoad(port: number) {
  const counts = { good: 0, bad: 0 }
  let isOver = false
  const request = 'GET / HTTP/1.1\r\nhost: a\r\n\r\n'
  const runs = Array.from(
    { length: CONNECTIONS },
    () =>
      new Promise<void>((resolve) => {
        const socket = connect(port, '127.0.0.1', () => socket.write(request))
        let isDone = false
        socket.setEncoding('latin1').on('data', (text) => {
          if (String(text).startsWith('HTTP/1.1 200')) counts.good += 1
          else counts.bad += 1
          if (!isOver) return socket.write(request)
          isDone = true
          return socket.end()
        })
        socket
          .once('error', () => {})
          .once('close', () => {
            if (!isDone) counts.bad += 1
            resolve()
          })
      }),
  )
  return {
    stop: async () => {
      isOver = true
      await Promise.all(runs)
      return counts
    },
  }
}

const count = async ({ envoy }: MtlsEnvoy, pattern: RegExp) => Object.values(await envoy.stats(pattern))[0]

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

async function until(test: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE
  while (!(await test())) {
    if (performance.now() > end) throw new Error('it took too long')
    await wait(5)
  }
}
