/** Calls that are reset as they come, and frames in any order: the agent's process goes on, and serves everybody else. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { ManualClock } from '../support/clock.ts'
import { watchEscapes } from '../support/escapes.ts'
import { FLAG, FRAME, frame, opening } from '../support/h2.ts'
import { drawsOf, literal, writeAll } from '../support/h2-fuzz.ts'
import { RawClient } from '../support/raw-client.ts'
import { fetchSecrets, SDS, secretsIn } from '../support/sds.ts'
import { until } from '../support/until.ts'

const SEED = 20_261_128
const CONNECTIONS = 300
const ABREAST = 6
const RST_STREAM = 3
const PING = 6
const WINDOW_UPDATE = 8
/** Settings as clients of three kinds send them. */
const OPENINGS: readonly (readonly [string, readonly (readonly [number, number])[]])[] = [
  ['grpc-go', []],
  ['any client', [[3, 7]]],
  [
    'Envoy',
    [
      [2, 0],
      [1, 4_096],
      [8, 1],
      [3, 100],
      [4, 65_535],
    ],
  ],
]
const METHODS = [
  'SpiffeWorkloadAPI/FetchX509SVID',
  `${SDS}/StreamSecrets`,
  `${SDS}/FetchSecrets`,
  'envoy.service.ext_proc.v3.ExternalProcessor/Process',
  'envoy.service.auth.v3.Authorization/Check',
  'grpc.health.v1.Health/Check',
  'nobody.knows/This',
]
const TYPES = ['application/grpc', 'text/plain']

const headOf = (path: string, type: string) =>
  Buffer.concat([
    literal(':method', 'POST'),
    literal(':scheme', 'http'),
    literal(':path', `/${path}`),
    literal(':authority', 'localhost'),
    literal('content-type', type),
    literal('workload.spiffe.io', 'true'),
  ])
const HEADS = TYPES.flatMap((type) => METHODS.map((path) => headOf(path, type)))
const ODD = [
  literal('x-trailer', '1'),
  literal('x', 'a\r\nb'),
  Buffer.of(0xff, 0xff, 0xff, 0x7f),
  Buffer.of(0x82),
]

let agent: TestAgent
const escaped = watchEscapes()

beforeAll(async () => {
  agent = await startAgent({
    config: (config) => ({ ...config, verifier: { ...config.verifier, socket: 'on' } }),
  })
})
afterAll(async () => agent?.[Symbol.asyncDispose]())

async function open(door: string): Promise<Socket> {
  const socket = connect(join(agent.dir, 'public', `${door}.sock`))
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket.resume()
}

async function expectServed(): Promise<void> {
  using client = new RawClient(agent.socket)
  expect(secretsIn(await fetchSecrets(client, ['default']))).toHaveLength(1)
  expect(escaped).toEqual([])
}

it.each(OPENINGS)(
  'calls of %s that are reset with their first bytes end nothing else',
  async (_who, settings) => {
    const calls = HEADS.map((head, at) => {
      const id = 2 * at + 1
      return Buffer.concat([
        frame(FRAME.headers, FLAG.endHeaders, id, head),
        frame(RST_STREAM, 0, id, Buffer.of(0, 0, 0, 8)),
      ])
    })
    for (const door of ['workload', 'verifier']) {
      const socket = await open(door)
      const answered = once(socket, 'data')
      socket.write(Buffer.concat([opening(settings), ...calls]))
      await answered
      await expectServed()
      socket.destroy()
    }
  },
)

it.each([
  ['a CONTINUATION of nothing', frame(FRAME.continuation, FLAG.endHeaders, 1, Buffer.from('x'))],
  ['a block that is no HPACK', frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.of(0xff, 0xff, 0xff, 0x7f))],
])('%s leaves no connection behind once its client has gone', async (_what, bytes) => {
  const clock = new ManualClock()
  await using own = await startAgent({ clock })
  const count = async () => Number(/^holdfast_connections (\d+)/m.exec(await own.metrics.render())?.[1])
  for (const [, settings] of OPENINGS) {
    const socket = connect(own.socket)
    socket.on('error', () => {})
    socket.write(Buffer.concat([opening(settings), bytes]))
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await Promise.race([closed, new Promise((resolve) => socket.once('data', resolve))])
    socket.destroy()
    await closed
  }
  await until('no connection', async () => {
    clock.advance(5_000)
    return (await count()) === 0
  })
})

it('a caller that takes no answers is not given room for more questions', async () => {
  const path = 'grpc.reflection.v1.ServerReflection/ServerReflectionInfo'
  // list_services: '', in a message of its own.
  const question = Buffer.of(0, 0, 0, 0, 2, 0x3a, 0)
  const questions = Buffer.concat(Array.from({ length: 6_000 }, () => question))
  const pieces = [0, 1, 2].map((at) => questions.subarray(at * 14_000, (at + 1) * 14_000))
  const socket = await open('workload')
  const received: Buffer[] = []
  socket.on('data', (bytes) => received.push(bytes))
  const told = () => Buffer.concat(received)
  socket.write(
    Buffer.concat([
      opening([[4, 0]]),
      frame(FRAME.headers, FLAG.endHeaders, 1, headOf(path, 'application/grpc')),
      ...pieces.map((piece) => frame(FRAME.data, 0, 1, piece)),
    ]),
  )
  await until('the head of an answer', () => told().includes('application/grpc'))
  socket.write(frame(PING, 0, 0, Buffer.from('are you?')))
  await until('the answer to a ping', () => told().includes('are you?'))
  expect(told().includes(Buffer.of(0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 1))).toBe(false)
  socket.destroy()
})

it('frames in any order end nothing but their own connection', async () => {
  const one = async (run: number) => {
    const draw = drawsOf(SEED + run)
    const socket = await open(draw(4) === 0 ? 'verifier' : 'workload')
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await writeAll(socket, draw, [...HEADS, ...ODD], true)
    await closed
  }
  for (let run = 0; run < CONNECTIONS; run += ABREAST)
    await Promise.all(Array.from({ length: ABREAST }, (_, at) => one(run + at)))
  await expectServed()
})
