/** Signing for an Envoy at a steady 1,000 requests a second: what each of them waits for, and what it costs the agent. */
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import { loadSync, type ServiceDefinition } from '@grpc/proto-loader'
import { startAgent, TARGET_URL } from './agent.ts'
import { startBareGrpc } from './bare-grpc.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { cpuMicros } from './meter.ts'
import { median, quantile } from './rounds.ts'

const PER_SECOND = 1_000
const ROUND_MS = 2_000
const WARM_ROUNDS = 3

const options = { keepCase: true, includeDirs: ['proto'] }
const definitions = loadSync(['ext_authz.proto', 'ext_proc.proto'], options)
const methodOf = (service: string, method: string) => {
  const definition = (definitions[service] as ServiceDefinition)[method]
  if (!definition) throw new Error(`there is no method ${method}`)
  return definition
}
const CHECK = methodOf('envoy.service.auth.v3.Authorization', 'Check')
const PROCESS = methodOf('envoy.service.ext_proc.v3.ExternalProcessor', 'Process')

const { host, pathname, protocol } = new URL(TARGET_URL)
const scheme = protocol.slice(0, -1)
/** As the configurations to copy have them: nothing but what the agent needs. */
const LINES = { ':method': 'GET', ':scheme': scheme, ':authority': host, ':path': pathname }
const headOf = (lines: Readonly<Record<string, string>>) => ({
  headers: {
    headers: Object.entries(lines).map(([key, value]) => ({ key, raw_value: Buffer.from(value) })),
  },
  end_of_stream: true,
})
const CHECKED = {
  attributes: { request: { http: { method: 'GET', scheme, host, path: pathname, headers: {} } } },
}

/** The figures of both services. */
export async function measureEnvoy({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const agent = await startAgent()
  const bare = await startBareGrpc()
  const [client, floor] = [agent, bare].map(clientOf) as [Client, Client]
  try {
    const ways = {
      bare_check: () => check(floor),
      bare_process: () => processTry(floor),
      check: () => check(client),
      process: () => processTry(client),
    }
    const names = Object.keys(ways) as (keyof typeof ways)[]
    const rounds = Object.fromEntries(names.map((name) => [name, [] as Round[]]))
    for (let round = -WARM_ROUNDS; round < (quick ? 3 : 9); round++)
      for (const name of names) {
        const { pid } = name.startsWith('bare') ? bare : agent
        const one = await runRound(ways[name], () => cpuMicros(pid))
        if (round >= 0) rounds[name]?.push(one)
      }
    const of = (name: string, what: keyof Round) => median((rounds[name] ?? []).map((one) => one[what]))
    return (['check', 'process'] as const).flatMap((name): readonly Measured[] => [
      { name: `envoy_${name}_p50_ms`, value: of(name, 'p50'), floor: of(`bare_${name}`, 'p50') },
      { name: `envoy_${name}_us`, value: of(name, 'cpu'), floor: of(`bare_${name}`, 'cpu') },
    ])
  } finally {
    client.close()
    floor.close()
    bare.stop()
    await agent.stop()
  }
}

function clientOf({ socket }: { readonly socket: string }): Client {
  return new Client(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
    'grpc.use_local_subchannel_pool': 1,
  })
}

interface Round {
  readonly p50: number
  readonly cpu: number
}

/** Calls begin when they are due, whether or not those before them are over. */
async function runRound(call: () => Promise<void>, cpu: () => number): Promise<Round> {
  const times: number[] = []
  const open: Promise<void>[] = []
  const before = cpu()
  const start = performance.now()
  const one = async () => {
    const began = performance.now()
    await call()
    times.push(performance.now() - began)
  }
  for (let due = 0; due < (ROUND_MS / 1_000) * PER_SECOND; ) {
    const now = ((performance.now() - start) / 1_000) * PER_SECOND
    while (due < now) {
      open.push(one())
      due += 1
    }
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  await Promise.all(open)
  return { p50: quantile(times, 0.5), cpu: (cpu() - before) / times.length }
}

function check(client: Client): Promise<void> {
  const { path, requestSerialize, responseDeserialize } = CHECK
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      CHECKED,
      new Metadata(),
      (error, answer) => {
        if (error || !(answer && 'ok_response' in answer)) reject(error ?? new Error('was refused'))
        else resolve()
      },
    )
  })
}

/** A whole try: the head of the request signed, the head of the answer heard. The wait is the one of the request. */
function processTry(client: Client): Promise<void> {
  const { path, requestSerialize, responseDeserialize } = PROCESS
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize)
  return new Promise((resolve, reject) => {
    call.on('error', reject)
    call.on('data', (message: object) => {
      if ('immediate_response' in message) reject(new Error('was refused'))
      if (!('request_headers' in message)) return
      resolve()
      call.write({ response_headers: headOf({ ':status': '200' }) })
      call.end()
    })
    call.write({ request_headers: headOf(LINES) })
  })
}
