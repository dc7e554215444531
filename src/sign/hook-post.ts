/** How the decision hook is reached: HTTP/1.1 over a unix socket, over TLS, or plain on loopback. */
import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'
import { request as requestTls, Agent as TlsAgent } from 'node:https'
import { Fault } from '../base/fault.ts'
import { ANSWER_BYTES, type HookPost, type HookReply } from './hook.ts'

/** Where it is; a URL was checked when the configuration was read. */
export type HookPlace = { readonly socket: string } | { readonly url: string }

const CONNECTIONS = 64
const IDLE = 30_000

/** Posts to `place`, over connections that are kept; redirects are answers like any other. */
export function postTo(place: HookPlace): HookPost {
  const settings = { keepAlive: true, maxSockets: CONNECTIONS, timeout: IDLE }
  const [plain, tls] = [new Agent(settings), new TlsAgent(settings)]
  const open = (headers: Readonly<Record<string, string | number>>, signal: AbortSignal): ClientRequest => {
    const common = { method: 'POST', headers, signal }
    if ('socket' in place)
      return request({ ...common, agent: plain, socketPath: place.socket, path: '/', host: 'localhost' })
    return place.url.startsWith('https:')
      ? requestTls(place.url, { ...common, agent: tls, minVersion: 'TLSv1.2' })
      : request(place.url, { ...common, agent: plain })
  }
  const post = (body: string, signal: AbortSignal, isRetry: boolean): Promise<HookReply> =>
    new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
      const sent = open(headers, signal)
      sent.once('response', (response) => readReply(response).then(resolve, reject))
      sent.once('error', (error: NodeJS.ErrnoException) => {
        // A kept connection may be closed just when a question goes over it (RFC 9112 s.9.3.1).
        const isStale = sent.reusedSocket && error.code === 'ECONNRESET' && !isRetry && !signal.aborted
        if (isStale) post(body, signal, true).then(resolve, reject)
        else reject(new Fault('hook_unavailable', 'the decision hook cannot be reached', { cause: error }))
      })
      sent.end(body)
    })
  return (body, signal) => post(body, signal, false)
}

async function readReply(response: IncomingMessage): Promise<HookReply> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of response) {
      size += (chunk as Buffer).length
      if (size > ANSWER_BYTES)
        throw new Fault('hook_unavailable', `the decision hook answers with over ${ANSWER_BYTES} bytes`)
      chunks.push(chunk as Buffer)
    }
  } catch (caught) {
    response.destroy()
    throw caught instanceof Fault ? caught : new Fault('hook_unavailable', undefined, { cause: caught })
  }
  const { statusCode: status = 0, headers } = response
  return { status, type: headers['content-type'] ?? '', text: Buffer.concat(chunks).toString('utf8') }
}
