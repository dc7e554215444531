/** gRPC through the egress door: an unmodified client on the socket, a real server over TLS that checks DPoP. */
import {
  type CallOptions,
  Client,
  type ClientOptions,
  credentials,
  Metadata,
  type ServiceError,
  type StatusObject,
  status,
} from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { type GrpcServer, ORDERS, startGrpcServer } from '../support/grpc-server.ts'
import { type Handler, type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()

const notFound: Handler = (request, response) => {
  request.resume()
  response.writeHead(404).end('no such page')
}

describe('gRPC through the egress door', () => {
  let server: GrpcServer
  let plain: ResourceServer
  let egress: TestEgress
  const clients: Client[] = []

  beforeAll(async () => {
    server = await startGrpcServer(ca)
    plain = await startResourceServer({ ca, handlers: { '/shop.Orders/Get': notFound } })
    const origin = `https://localhost:${server.port}`
    egress = await startEgress({
      ca,
      targets: {
        orders: { origin },
        narrow: { origin, paths: '["/shop.Orders/Get"]', methods: '[POST]' },
        plain: { origin: `https://localhost:${plain.port}` },
        gone: { origin: 'https://localhost:1' },
      },
      calls: 8,
    })
  })

  afterAll(async () => {
    await egress?.[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
    await plain?.[Symbol.asyncDispose]()
  })

  afterEach(() => {
    for (const client of clients.splice(0)) client.close()
  })

  /** What any application does: the socket as address, the target as authority. */
  const clientOf = (authority: string, more: ClientOptions = { 'grpc.enable_retries': 0 }) => {
    const client = new Client(`unix:${egress.socket}`, credentials.createInsecure(), {
      'grpc.default_authority': authority,
      ...more,
    })
    clients.push(client)
    return client
  }

  interface Unary {
    readonly error: ServiceError | null
    readonly answer: string | undefined
    readonly status: StatusObject
  }

  const unary = (
    client: Client,
    { path, requestSerialize, responseDeserialize }: (typeof ORDERS)['Get'],
    text = '17',
    options: CallOptions = {},
    metadata = new Metadata(),
  ) =>
    new Promise<Unary>((resolve) => {
      let got: Pick<Unary, 'error' | 'answer'> | undefined
      const call = client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        Buffer.from(text),
        metadata,
        options,
        (error, answer) => {
          got = { error, answer: answer?.toString() }
        },
      )
      call.on('status', (ended) =>
        setImmediate(() => resolve({ error: null, answer: undefined, ...got, status: ended })),
      )
    })

  const open = (client: Client, { path, requestSerialize, responseDeserialize }: (typeof ORDERS)['Get']) => {
    const call = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, Buffer.alloc(0))
    const [messages, ends] = [[] as string[], [] as StatusObject[]]
    call.on('data', (message: Buffer) => messages.push(message.toString()))
    call.on('error', () => {})
    call.on('status', (ended) => ends.push(ended))
    return { call, messages, end: () => until('the end of the call', () => ends[0]) }
  }

  it('calls with a token and a proof for POST and the path of the method', async () => {
    const { answer, status: ended } = await unary(clientOf('orders'), ORDERS.Get)
    expect(answer).toBe('spiffe://example.org/web 17')
    expect(ended.code).toBe(status.OK)
    expect(ended.metadata.get('x-trailer')).toEqual(['kept'])
    expect(server.refused).toEqual([])
  })

  it("leaves with none of the caller's credentials and all of its own metadata", async () => {
    const metadata = new Metadata()
    for (const name of ['authorization', 'dpop', 'x-forwarded-for', 'holdfast-x', 'x-mine'])
      metadata.set(name, 'mine')
    metadata.set('x-mine-bin', Buffer.from([0, 255]))
    const { answer } = await unary(clientOf('orders'), ORDERS.Get, 'a', {}, metadata)
    expect(answer).toBe('spiffe://example.org/web a')
    const seen = server.metadata.at(-1)
    expect(seen?.get('x-mine')).toEqual(['mine'])
    expect(seen?.get('x-mine-bin')).toEqual([Buffer.from([0, 255])])
    expect([seen?.get('x-forwarded-for'), seen?.get('holdfast-x')]).toEqual([[], []])
    expect(JSON.stringify(seen?.get('authorization'))).not.toContain('mine')
  })

  it('streams the messages of a server, and the trailers after them', async () => {
    const list = open(clientOf('orders'), ORDERS.List)
    const ended = await list.end()
    expect(list.messages).toEqual(['item 0', 'item 1', 'item 2', 'item 3', 'item 4'])
    expect([ended.code, ended.metadata.get('x-trailer')]).toEqual([status.OK, ['kept']])
  })

  it('streams both ways at once: each message is answered before the next is sent', async () => {
    const { path, requestSerialize, responseDeserialize } = ORDERS.Talk
    const call = clientOf('orders').makeBidiStreamRequest(path, requestSerialize, responseDeserialize)
    const heard: string[] = []
    call.on('data', (message: Buffer) => heard.push(message.toString()))
    const ended = new Promise<StatusObject>((resolve) => call.on('status', resolve))
    for (let at = 0; at < 3; at += 1) {
      call.write(Buffer.from(`${at}`))
      await until(`an echo of ${at}`, () => heard[at])
    }
    call.end()
    expect((await ended).code).toBe(status.OK)
    expect(heard).toEqual(['echo 0', 'echo 1', 'echo 2'])
  })

  it("passes a server's own error: a status without messages", async () => {
    const { error } = await unary(clientOf('orders'), ORDERS.Fail)
    expect([error?.code, error?.details]).toEqual([status.NOT_FOUND, 'no order 17: “zero”'])
  })

  it('takes messages of megabytes', async () => {
    const text = 'x'.repeat(3 * 1024 * 1024)
    const { answer } = await unary(clientOf('orders'), ORDERS.Get, text)
    expect(answer).toHaveLength('spiffe://example.org/web '.length + text.length)
  })

  it('ends the call at the server when the deadline of the client passes', async () => {
    const before = server.cancelled
    const { error } = await unary(clientOf('orders'), ORDERS.Never, '', { deadline: Date.now() + 200 })
    expect(error?.code).toBe(status.DEADLINE_EXCEEDED)
    await until('the server to hear of it', () => server.cancelled > before)
  })

  it('ends the call at the server when the client cancels', async () => {
    const before = server.cancelled
    const { call, messages, end } = open(clientOf('orders'), ORDERS.Wait)
    await until('a message', () => messages[0])
    call.cancel()
    expect((await end()).code).toBe(status.CANCELLED)
    await until('the server to hear of it', () => server.cancelled > before)
    await until('the record of it', () => egress.records().some(({ reason }) => reason === 'canceled'))
  })

  it.each([
    ['a target that is none', 'nobody', ORDERS.Get, status.PERMISSION_DENIED, 'target_unknown'],
    ['a method that no grant names', 'narrow', ORDERS.List, status.PERMISSION_DENIED, 'policy_denied'],
    ['a target that is down', 'gone', ORDERS.Get, status.UNAVAILABLE, 'upstream_unavailable'],
    ['an authority that is no name', 'orders:443', ORDERS.Get, status.INVALID_ARGUMENT, 'invalid_request'],
  ])('refuses %s with a status of gRPC and its reason', async (_what, authority, method, code, reason) => {
    const { error } = await unary(clientOf(authority), method)
    expect([error?.code, error?.metadata.get('holdfast-reason')]).toEqual([code, [reason]])
    const [details] = error?.metadata.get('grpc-status-details-bin') ?? []
    expect(String(details)).toContain(reason)
  })

  it('passes the refusal of a target that speaks HTTP/1.1 as it is', async () => {
    const { error } = await unary(clientOf('plain'), ORDERS.Get)
    expect([error?.code, error?.metadata.get('holdfast-reason')]).toEqual([status.UNIMPLEMENTED, []])
  })

  it('refuses more calls of a uid than it may have, on whatever connections', async () => {
    const waiting = Array.from({ length: 8 }, () => open(clientOf('orders'), ORDERS.Wait))
    for (const { messages } of waiting) await until('a message', () => messages[0])
    const { error } = await unary(clientOf('orders'), ORDERS.Get)
    expect([error?.code, error?.metadata.get('holdfast-reason')]).toEqual([
      status.RESOURCE_EXHAUSTED,
      ['too_many_calls'],
    ])
    for (const { call } of waiting) call.cancel()
    await until('room for one more', async () => (await unary(clientOf('orders'), ORDERS.Get)).error === null)
  })

  it('ends an open call with the reason when its target leaves the policy', async () => {
    const { messages, end } = open(clientOf('orders'), ORDERS.Wait)
    await until('a message', () => messages[0])
    egress.door.close({ target: 'orders' })
    const ended = await end()
    expect([ended.code, ended.metadata.get('holdfast-reason')]).toEqual([
      status.UNAVAILABLE,
      ['upstream_unavailable'],
    ])
  })

  it('lets open calls end and takes no new ones when it drains', async () => {
    const client = clientOf('orders', {})
    const { call, messages, end } = open(client, ORDERS.Wait)
    await until('a message', () => messages[0])
    egress.door.drain()
    const { error } = await unary(client, ORDERS.Get)
    // The client connects anew: GOAWAY told it so.
    expect(error).toBeNull()
    call.cancel()
    expect((await end()).code).toBe(status.CANCELLED)
  })
})
