/** SDS under clients that mean no good or know no better: bounded, answered, never a crash or a loop. */
import protobuf from 'protobufjs/light.js'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { identityPolicy, idOf, TRUST_DOMAIN } from '../support/identities.ts'
import { keepLog } from '../support/kept-log.ts'
import { RawClient, type RawStream } from '../support/raw-client.ts'
import { fetchSecrets, openSds, SDS, SECRET_TYPE, secretsIn } from '../support/sds.ts'
import { until } from '../support/until.ts'

const log = keepLog()
let agent: TestAgent
let client: RawClient

beforeAll(async () => {
  agent = await startAgent({
    log,
    policy: identityPolicy([{ path: 'web' }, { path: 'else', uid: 4_000_000 }]),
  })
})
afterAll(async () => {
  // Whatever came before, the agent still answers.
  using last = new RawClient(agent.socket)
  expect(secretsIn(await fetchSecrets(last, ['default']))).toHaveLength(1)
  await agent[Symbol.asyncDispose]()
})

function withClient(then: () => Promise<void>): () => Promise<void> {
  return async () => {
    client = new RawClient(agent.socket)
    try {
      await then()
    } finally {
      client[Symbol.dispose]()
    }
  }
}

const stream = (method = 'StreamSecrets') => client.open(`${SDS}/${method}`, undefined, [])

async function sent(): Promise<number> {
  return Number(/^holdfast_sds_total\{outcome="sent"\} (\d+)$/m.exec(await agent.metrics.render())?.[1] ?? 0)
}

/** A DiscoveryRequest with all that Envoy says of itself: its name, and 500 extensions. */
function largeRequest(nonce: string): Buffer {
  const node = protobuf.Writer.create()
  node.uint32(10).string(idOf('else')).uint32(18).string(`spiffe://${TRUST_DOMAIN}/else`)
  for (let extension = 0; extension < 516; extension += 1) {
    node
      .uint32(74)
      .fork()
      .uint32(10)
      .string(`envoy.extension.${extension}`)
      .uint32(18)
      .string('x'.repeat(92))
      .ldelim()
  }
  const whole = protobuf.Writer.create()
  whole.uint32(18).bytes(node.finish()).uint32(26).string('default')
  whole.uint32(34).string(SECRET_TYPE).uint32(42).string(nonce)
  return Buffer.from(whole.finish())
}

describe('a client', () => {
  it(
    'that claims to be another node, at length and in each message, is itself and is answered once',
    withClient(async () => {
      const open = stream()
      open.send(largeRequest(''))
      const { nonce } = await open.message(1)
      expect(secretsIn(open.messages[0])[0]?.spiffeId).toBe(idOf('web'))
      expect(largeRequest(nonce).length).toBeGreaterThan(60_000)
      for (let times = 0; times < 200; times += 1) open.send(largeRequest(nonce))
      await fetchSecrets(client, ['ROOTCA'])
      expect(open.messages).toHaveLength(1)
    }),
  )

  it(
    'that refuses for ever is told nothing new, and fills no log',
    withClient(async () => {
      const open = openSds(client, ['default'])
      await open.message(1)
      const before = log.lines.length
      const text = `no\u001b[31m\n{"level":"error"}\u202e${'x'.repeat(100_000)}`
      for (let times = 0; times < 1_000; times += 1) open.ack(text)
      await until('one line', () => log.lines.length > before)
      await fetchSecrets(client, ['ROOTCA'])
      expect(open.messages).toHaveLength(1)
      const lines = log.lines.slice(before).map(({ message }) => message)
      expect(lines).toHaveLength(1)
      expect(lines[0]?.length).toBeLessThan(400)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there.
      expect(lines[0]).not.toMatch(/[\u0000-\u001f\u202e]/)
    }),
  )

  it.each([
    ['over 64 names', Array.from({ length: 65 }, (_, at) => `name-${at}`)],
    ['over 32 KiB of names', Array.from({ length: 17 }, (_, at) => `${at}`.padEnd(2_000, 'x'))],
    ['a name that is no name', ['x'.repeat(3_000)]],
  ])('with %s is refused', (_what, names) =>
    withClient(async () => {
      const refused = { code: 'INVALID_ARGUMENT', info: { reason: 'invalid_request' } }
      expect(await openSds(client, names).end()).toMatchObject(refused)
      expect(await fetchSecrets(client, names)).toMatchObject(refused)
      const delta = stream('DeltaSecrets')
      delta.send({ resource_names_subscribe: names })
      expect(await delta.end()).toMatchObject(refused)
    })(),
  )

  it(
    'that adds names for ever is refused at 64, or at 32 KiB of them',
    withClient(async () => {
      for (const [count, length] of [
        [70, 10],
        [20, 2_000],
      ] as const) {
        const delta = stream('DeltaSecrets')
        for (let at = 0; at < count; at += 1)
          delta.send({ resource_names_subscribe: ['default', `${idOf('x')}${at}`.padEnd(length, 'x')] })
        expect(await delta.end()).toMatchObject({ code: 'INVALID_ARGUMENT' })
      }
    }),
  )

  it(
    'with many names, of which one is its own, is answered with that one',
    withClient(async () => {
      const names = Array.from({ length: 63 }, (_, at) => `${idOf('x')}${at}`)
      expect(secretsIn(await openSds(client, [...names, 'default']).message(1))).toHaveLength(1)
    }),
  )

  it(
    'that speaks both forms on one connection is answered in each',
    withClient(async () => {
      const opened = Array.from({ length: 10 }, () => {
        const delta = stream('DeltaSecrets')
        delta.send({ node: {}, resource_names_subscribe: ['default'], type_url: SECRET_TYPE })
        return [openSds(client, ['default']), delta]
      }).flat()
      for (const open of opened) expect(secretsIn(await open.message(1))).toHaveLength(1)
      const [, delta] = opened
      delta?.send({ resource_names_subscribe: ['ROOTCA'], response_nonce: 'of another stream' })
      expect(secretsIn(await delta?.message(2)).map(({ name }) => name)).toEqual(['ROOTCA'])
      delta?.send({ resource_names_unsubscribe: ['default', 'ROOTCA', 'never'] })
      await fetchSecrets(client, ['ROOTCA'])
      expect(opened.map(({ messages }) => messages.length)).toEqual([1, 2, ...Array(18).fill(1)])
    }),
  )

  it(
    'that asks and asks and never reads is not answered further, and costs nobody else',
    withClient(async () => {
      const asks = 3_000
      // In this form a name that is asked for again is sent again.
      const again = { node: {}, resource_names_subscribe: ['default'] }
      const open = stream('DeltaSecrets')
      open.send(again)
      await open.message(1)
      open.pause()
      const before = await sent()
      for (let times = 0; times < asks; times += 1) open.send(again)
      using other = new RawClient(agent.socket)
      for (let times = 0; times < 200; times += 1) await fetchSecrets(other, ['ROOTCA'])
      expect((await sent()) - before - 200).toBeLessThan(asks / 2)
      open.cancel()
      await until('its end', () => open.ending)
    }),
  )

  it.each([
    ['another type', { type_url: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' }, 'INVALID_ARGUMENT'],
    ['a node of odd metadata', { node: { metadata: { fields: { __proto__: {} } } } }, undefined],
  ])('that asks with %s is answered', (_what, more, code) =>
    withClient(async () => {
      const open = stream()
      open.send({ resource_names: ['default'], ...more })
      await until('an answer', () => open.messages.length > 0 || open.ending)
      expect(open.ending?.code).toBe(code)
    })(),
  )

  it.each([
    ['bytes that are no message', Buffer.alloc(1_000, 0xff)],
    ['a message without an end', Buffer.from([0x12, 0xff, 0xff, 0x03])],
    ['a field that nests without an end', nested(20_000)],
    ['over a mebibyte', Buffer.alloc(1024 * 1024 + 1)],
  ])('that sends %s is refused or answered, and nothing else happens', (_what, bytes) =>
    withClient(async () => {
      for (const method of ['StreamSecrets', 'DeltaSecrets']) {
        const open = stream(method)
        open.send(bytes)
        await until('an answer', () => open.messages.length > 0 || open.ending)
      }
    })(),
  )

  it(
    'that opens streams and says nothing holds nothing else up',
    withClient(async () => {
      const silent: RawStream[] = Array.from({ length: 90 }, () => stream())
      expect(secretsIn(await openSds(client, ['default']).message(1))).toHaveLength(1)
      for (const open of silent) open.cancel()
    }),
  )
})

/** Field 2 (node) holds field 3 (metadata) holds field 1 …, so many times. */
function nested(depth: number): Buffer {
  let bytes = Buffer.alloc(0)
  for (let at = 0; at < depth && bytes.length < 500_000; at += 1) {
    const head = protobuf.Writer.create().uint32(18).uint32(bytes.length).finish()
    bytes = Buffer.concat([head, bytes])
  }
  return bytes
}
