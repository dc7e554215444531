/**
 * An API server as far as a reader of collections sees it: lists in pages at one version, watches with bookmarks that
 * go on from a version or are told that it is gone (410), merge patches of status, and each way in which it may fail.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { makeTestCa, type TestCa } from './tls.ts'

type Json = Record<string, unknown>

export interface FakeApiServer extends AsyncDisposable {
  readonly url: string
  readonly ca: TestCa
  /** `METHOD PATH?QUERY` of each request. */
  readonly asked: string[]
  /** Bodies of patches, by path. */
  readonly patches: Map<string, Json>
  /** Watches that are open. */
  watching(): number
  /** A status that everything is answered with; 0 when all is well. */
  refuses: number
  /** Paths of patches are answered with this; 0 when they are carried out. */
  refusesPatches: number
  pageSize: number
  /** Makes or changes an object of the collection at `path`. */
  put(path: string, object: Json): void
  remove(path: string, namespace: string, name: string): void
  /** Forgets history: watches from an older version get 410. */
  compact(): void
  /** Ends watches in the middle of a line. */
  cut(): void
  /** Sends a line that is none to all watches. */
  garble(): void
  bookmark(): void
  stop(): Promise<void>
}

interface Event {
  readonly path: string
  readonly version: number
  readonly type: string
  readonly object: Json
}

export async function startFakeApiServer(): Promise<FakeApiServer> {
  const ca = makeTestCa()
  const { key, cert } = ca.serverFiles()
  const objects = new Map<string, Map<string, Json>>()
  const watches = new Set<{ readonly path: string; readonly response: ServerResponse }>()
  const sockets = new Set<Duplex>()
  let history: Event[] = []
  let version = 1
  let oldest = 0
  const keyOf = (object: Json) => {
    const { namespace = '', name } = object['metadata'] as Json
    return `${String(namespace)}/${String(name)}`
  }
  const record = (path: string, type: string, object: Json) => {
    version += 1
    const metadata = { ...(object['metadata'] as Json), resourceVersion: String(version) }
    const event = { path, version, type, object: { ...object, metadata } }
    history.push(event)
    for (const watch of watches) if (watch.path === path) watch.response.write(lineOf(event))
    return event.object
  }
  const lineOf = ({ type, object }: Pick<Event, 'type' | 'object'>) => `${JSON.stringify({ type, object })}\n`
  const list = (path: string, query: URLSearchParams, response: ServerResponse) => {
    const all = [...(objects.get(path)?.values() ?? [])]
    const from = Number(query.get('continue') ?? 0)
    const end = from + Math.min(server.pageSize, Number(query.get('limit') ?? all.length + 1))
    const more = end < all.length ? { continue: String(end) } : {}
    json(response, 200, {
      kind: 'List',
      metadata: { resourceVersion: String(version), ...more },
      items: all.slice(from, end),
    })
  }
  const watch = (path: string, query: URLSearchParams, response: ServerResponse) => {
    const from = Number(query.get('resourceVersion'))
    response.writeHead(200, { 'content-type': 'application/json' })
    response.flushHeaders()
    if (from < oldest) {
      const status = { kind: 'Status', code: 410, reason: 'Expired' }
      response.end(`${JSON.stringify({ type: 'ERROR', object: status })}\n`)
      return
    }
    for (const event of history)
      if (event.path === path && event.version > from) response.write(lineOf(event))
    const open = { path, response }
    watches.add(open)
    response.on('close', () => watches.delete(open))
  }
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', 'https://host')
    server.asked.push(`${request.method} ${url.pathname}${url.search}`)
    if (request.headers.authorization !== 'Bearer good') return json(response, 401, {})
    if (server.refuses > 0) return json(response, server.refuses, { kind: 'Status', code: server.refuses })
    if (request.method === 'PATCH') {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      if (server.refusesPatches > 0) return json(response, server.refusesPatches, {})
      server.patches.set(url.pathname, JSON.parse(Buffer.concat(chunks).toString()) as Json)
      return json(response, 200, {})
    }
    if (url.searchParams.get('watch') === '1') return watch(url.pathname, url.searchParams, response)
    return list(url.pathname, url.searchParams, response)
  }
  const https = createServer({ key, cert }, (request, response) => void answer(request, response))
  https.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => https.listen(0, '127.0.0.1', resolve))
  const server: FakeApiServer = {
    url: `https://127.0.0.1:${(https.address() as AddressInfo).port}`,
    ca,
    asked: [],
    patches: new Map(),
    watching: () => watches.size,
    refuses: 0,
    refusesPatches: 0,
    pageSize: 500,
    put: (path, object) => {
      const collection = objects.get(path) ?? new Map<string, Json>()
      objects.set(path, collection)
      const type = collection.has(keyOf(object)) ? 'MODIFIED' : 'ADDED'
      collection.set(keyOf(object), record(path, type, object))
    },
    remove: (path, namespace, name) => {
      const known = objects.get(path)?.get(`${namespace}/${name}`)
      objects.get(path)?.delete(`${namespace}/${name}`)
      if (known) record(path, 'DELETED', known)
    },
    compact: () => {
      version += 1
      oldest = version
      history = []
    },
    cut: () => {
      for (const { response } of watches) {
        response.write('{"type":"ADD')
        response.socket?.destroy()
      }
    },
    garble: () => {
      for (const { response } of watches) response.write('not json\n')
    },
    bookmark: () => {
      const object = { metadata: { resourceVersion: String(version) } }
      for (const { response } of watches) response.write(lineOf({ type: 'BOOKMARK', object }))
    },
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => https.close(resolve))
    },
    [Symbol.asyncDispose]: () => server.stop(),
  }
  return server
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}
