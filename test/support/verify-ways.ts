/** Every way in to the verifier: the same request asked about by gRPC, JSON, Envoy's ext_authz and forward-auth. */

import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { call } from './call.ts'
import { RawClient } from './raw-client.ts'
import { openWire } from './raw-http.ts'
import { until } from './until.ts'
import type { Received } from './verify-rig.ts'

/** What was heard; `headers` are those for the caller outside, or those for the application. */
export interface Heard {
  readonly isAllowed: boolean
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** The fine reason, where the way tells it. */
  readonly reason?: string
  /** The whole answer. */
  // biome-ignore lint/suspicious/noExplicitAny: tests read members of answers they assert on.
  readonly body?: any
}

export interface Way {
  readonly name: string
  /** Whether it can tell of the TLS peer. */
  readonly hasPeer: boolean
  ask(socket: string, request: Received): Promise<Heard>
}

const pemText = (der: Buffer) => encodeURIComponent(new X509Certificate(der).toString())

function membersOf({ route, method, path, headers, certificate, address }: Received) {
  const peer = { ...(certificate ? { certificate } : {}), ...(address ? { address } : {}) }
  return { ...(route === undefined ? {} : { route }), method, path, headers, peer }
}

const json: Way = {
  name: 'POST /v1/verify',
  hasPeer: true,
  ask: async (socket, request) => {
    const { peer, ...members } = membersOf(request)
    const certificate = request.certificate?.toString('base64')
    const body = { ...members, peer: { ...peer, ...(certificate ? { certificate } : {}) } }
    const { status, body: answer } = await call(socket, 'POST', '/v1/verify', { body })
    const { challenge, error } = answer
    if (status === 200) return { isAllowed: true, status, headers: {}, body: answer }
    if (!challenge) return { isAllowed: false, status, headers: {}, reason: error.reason, body: answer }
    return { isAllowed: false, status, headers: challenge.headers, reason: error.reason, body: answer }
  },
}

const grpc: Way = {
  name: 'VerifyService/VerifyRequest',
  hasPeer: true,
  ask: async (socket, request) => {
    using client = new RawClient(socket)
    const headers = request.headers.map(([name, value]) => ({ name, value }))
    const asked = { ...membersOf(request), headers }
    const answer = await client.unary('holdfast.v1.VerifyService/VerifyRequest', asked)
    if (answer.verified) return { isAllowed: true, status: 200, headers: {}, body: answer.verified }
    if (answer.code) return { isAllowed: false, status: 403, headers: {}, reason: answer.info.reason }
    const { challenge, error } = answer.refused
    return { isAllowed: false, status: challenge.status, headers: challenge.headers, reason: error.reason }
  },
}

/** What Envoy sends: a map in which lines of one name are joined, or all lines as they are. */
const envoy = (isRaw: boolean): Way => ({
  name: `ext_authz Check${isRaw ? ' with raw headers' : ''}`,
  hasPeer: true,
  ask: async (socket, request) => {
    using client = new RawClient(socket)
    const { route, method, path, certificate, address } = request
    const lines = [[':path', path] as const, ...request.headers]
    const joined: Record<string, string> = {}
    for (const [name, value] of lines) {
      const key = name.toLowerCase()
      joined[key] = joined[key] === undefined ? value : `${joined[key]},${value}`
    }
    const raw = lines.map(([key, value]) => ({ key: key.toLowerCase(), raw_value: Buffer.from(value) }))
    const answer = await client.unary(
      'envoy.service.auth.v3.Authorization/Check',
      {
        attributes: {
          source: {
            ...(certificate ? { certificate: pemText(certificate) } : {}),
            ...(address ? { address: { socket_address: { address } } } : {}),
          },
          request: {
            http: {
              method,
              path: `${path}?secret=1`,
              ...(isRaw ? { header_map: { headers: raw } } : { headers: joined }),
            },
          },
          context_extensions: route === undefined ? {} : { route },
        },
      },
      [],
    )
    const { ok_response: ok, denied_response: denied } = answer
    const headers = Object.fromEntries(
      (ok ?? denied).headers?.map(({ header }: { header: { key: string; value: string } }) => [
        header.key,
        header.value,
      ]) ?? [],
    )
    return { isAllowed: ok !== undefined, status: denied?.status.code ?? 200, headers, body: answer }
  },
})

/** As nginx asks; Traefik knows no peer. */
const forwardAuth = (proxy: 'nginx' | 'traefik'): Way => ({
  name: `forward-auth for ${proxy}`,
  hasPeer: proxy === 'nginx',
  ask: async (socket, request) => {
    const { route = '', method, path, certificate, address } = request
    const known = [...(certificate ? ['certificate'] : []), ...(address ? ['address'] : [])]
    const peer = known.length === 0 ? '' : `?peer=${known.join(',')}`
    const query = proxy === 'traefik' ? '?proxy=traefik' : peer
    const own =
      proxy === 'traefik'
        ? [`X-Forwarded-Method: ${method}`, `X-Forwarded-Uri: ${path}?secret=1`]
        : [
            `X-Original-Method: ${method}`,
            `X-Original-URI: ${path}?secret=1`,
            ...(certificate ? [`X-Original-Certificate: ${pemText(certificate)}`] : []),
            ...(address ? [`X-Original-Address: ${address}`] : []),
          ]
    const sent = request.headers
      .filter(([name]) => name !== 'Host')
      .map(([name, value]) => `${name}: ${value}`)
    const head = [`GET /v1/forward-auth/${route}${query} HTTP/1.1`, 'Host: localhost', ...own, ...sent]
    return rawAnswer(socket, `${head.join('\r\n')}\r\n\r\n`)
  },
})

/** A response of node:http as it was heard; rejects when it is cut off. */
export function heardOf(response: IncomingMessage): Promise<Heard> {
  return new Promise((resolve, reject) => {
    let body = ''
    response.setEncoding('utf8')
    response.on('data', (chunk) => (body += chunk))
    response.once('end', () => {
      const status = response.statusCode ?? 0
      const said = Object.entries(response.headers).map(([name, value]) => [name, String(value)])
      resolve({ isAllowed: status === 200, status, headers: Object.fromEntries(said), body })
    })
    response.once('error', reject)
  })
}

/** Sends `bytes`; a forward-auth answer has no body. */
export async function rawAnswer(socket: string, bytes: string): Promise<Heard> {
  using wire = await openWire(socket)
  await wire.write(bytes)
  const text = await until('an answer', () => {
    const received = wire.received.toString('latin1')
    return received.includes('\r\n\r\n') ? received : undefined
  })
  const [line = '', ...rest] = text.slice(0, text.indexOf('\r\n\r\n')).split('\r\n')
  const headers = Object.fromEntries(
    rest.map((header) => [
      header.slice(0, header.indexOf(':')).toLowerCase(),
      header.slice(header.indexOf(':') + 2),
    ]),
  )
  const status = Number(line.split(' ')[1])
  return { isAllowed: status === 200, status, headers, body: text.slice(text.indexOf('\r\n\r\n') + 4) }
}

export const WAYS: readonly Way[] = [
  json,
  grpc,
  envoy(false),
  envoy(true),
  forwardAuth('nginx'),
  forwardAuth('traefik'),
]
