/**
 * Fetches the JWK Sets of authorization servers: over verified TLS, never redirected, bounded in time and size. Where a
 * server's keys are is stated, or its metadata says it (RFC 8414 s.3, OpenID Connect Discovery 1.0 s.4).
 */
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { STATUS_TOKEN_LIMIT } from '../ingress/status-token.ts'
import type { Server } from '../policy/grant.ts'
import type { StatedServer } from './read-routes.ts'

const TIMEOUT: Millis = 5_000
const BODY_LIMIT = 256 * 1024
const HEAD_LIMIT = 16 * 1024
const LIMITS = { maxBytes: BODY_LIMIT, maxDepth: 8 }

const DOCUMENT = { accept: 'application/json', limit: BODY_LIMIT }
const STATUS_LIST = { accept: 'application/statuslist+jwt', limit: STATUS_TOKEN_LIMIT }

interface Answer {
  readonly status: number
  readonly body: string
}

/** The fetch of `KeySets`; throws issuer_unavailable. */
export function keyFetch(
  servers: readonly StatedServer[],
  clock: Clock,
): (server: Server) => Promise<string> {
  const roots = new Map(servers.map(({ server, ca }) => [server.issuer, ca]))
  return async (server) => {
    const get = (url: string) => getOnce(url, roots.get(server.issuer), clock)
    const { status, body } = await get(server.jwksUri ?? (await statedUri(server.issuer, get)))
    if (status !== 200) throw unavailable(`answers for its JWK Set with status ${status}`)
    return body
  }
}

/** The fetch of `StatusLists`; throws issuer_unavailable. */
export function statusFetch(
  servers: readonly StatedServer[],
  clock: Clock,
): (server: Server, uri: string) => Promise<string> {
  const roots = new Map(servers.map(({ server, ca }) => [server.issuer, ca]))
  return async ({ issuer }, uri) => {
    const { status, body } = await getOnce(uri, roots.get(issuer), clock, STATUS_LIST)
    if (status !== 200) throw unavailable(`answers for a status list with status ${status}`)
    return body
  }
}

/** RFC 8414 s.3.3: the document has to name the very issuer; its keys have to be at the same origin. */
async function statedUri(issuer: string, get: (url: string) => Promise<Answer>): Promise<string> {
  for (const url of placesOf(issuer)) {
    const { status, body } = await get(url)
    if (status >= 400 && status < 500 && status !== 429) continue
    if (status !== 200) throw unavailable(`answers for its metadata with status ${status}`)
    const { issuer: named, jwks_uri: uri } = documentIn(body)
    if (named !== issuer) throw unavailable('names another issuer in its metadata')
    if (typeof uri === 'string' && URL.canParse(uri) && new URL(uri).origin === new URL(issuer).origin)
      return uri
    throw new Fault(
      'issuer_unavailable',
      'the metadata of the authorization server names no JWK Set at its own origin',
      {
        action: 'State it as jwksUri of the server, when it is the right one.',
      },
    )
  }
  throw unavailable('has no metadata')
}

function placesOf(issuer: string): readonly string[] {
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/$/, '')
  return [
    `${origin}/.well-known/oauth-authorization-server${path}`,
    `${origin}${path}/.well-known/openid-configuration`,
  ]
}

function documentIn(body: string): Readonly<Record<string, unknown>> {
  try {
    return parseJsonObject(body, LIMITS)
  } catch {
    throw unavailable('has metadata that is not one JSON object')
  }
}

function getOnce(
  url: string,
  ca: string | undefined,
  clock: Clock,
  { accept, limit } = DOCUMENT,
): Promise<Answer> {
  const headers = { accept, 'accept-encoding': 'identity' }
  const options = { agent: false, headers, maxHeaderSize: HEAD_LIMIT, minVersion: 'TLSv1.2' } as const
  return new Promise((resolve, reject) => {
    const asked = request(url, ca === undefined ? options : { ...options, ca })
    const cancel = clock.after(TIMEOUT, () => asked.destroy(unavailable('does not answer in time')))
    const end = (error: unknown) => {
      cancel()
      reject(error instanceof Fault ? error : unavailable('cannot be reached', error))
    }
    asked.on('error', end)
    asked.on('response', (response) => {
      bodyOf(response, limit).then((body) => {
        cancel()
        resolve({ status: response.statusCode ?? 0, body })
      }, end)
    })
    asked.end()
  })
}

async function bodyOf(response: IncomingMessage, limit: number): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response) {
    size += (chunk as Buffer).length
    if (size > limit) throw unavailable(`answers with over ${limit} bytes`)
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function unavailable(what: string, cause?: unknown): Fault {
  return new Fault('issuer_unavailable', `the authorization server ${what}`, { cause })
}
