/** The door for pushed security events (RFC 8935): HTTPS only, one SET a request, from who shows a transmitter's token. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Transmitter } from '../policy/transmitter.ts'
import { openPublicServer, type PublicServer } from '../serve/public-server.ts'
import { sendersOf } from './event-senders.ts'
import { issuerIn, type SetError, SetRefusal } from './event-token.ts'
import type { SecurityEvents } from './events.ts'

export interface EventPushOptions {
  readonly host: string
  readonly port: number
  /** PEM files. */
  readonly certificateFile: string
  readonly keyFile: string
  readonly transmitters: () => readonly Transmitter[]
  readonly events: Pick<SecurityEvents, 'take'>
  /** Who it was, if that is known, and what was wrong. */
  readonly onRefused: (issuer: string | undefined, why: SetRefusal | Fault) => void
}

const HEADER_BYTES = 8192
const PATIENCE: Millis = 10_000
const CONNECTIONS = 64
const BODY_LIMIT = 64 * 1024
const RETRY_AFTER = '10'

/** Listens; throws as `openPublicServer`. */
export async function openEventPush(options: EventPushOptions): Promise<PublicServer> {
  const { host, port, certificateFile, keyFile } = options
  return await openPublicServer({
    name: 'events.listen',
    host,
    port,
    files: { certificateFile, keyFile },
    connections: CONNECTIONS,
    maxHeaderSize: HEADER_BYTES,
    patience: PATIENCE,
    listener: (request, response) => {
      void answer(options, request, response)
    },
  })
}

async function answer(
  options: EventPushOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  let issuer: string | undefined
  try {
    if (request.method !== 'POST') return void response.writeHead(405, { Allow: 'POST' }).end()
    const senders = authenticated(options, request)
    if (request.headers['content-type']?.split(';')[0]?.trim().toLowerCase() !== 'application/secevent+jwt')
      throw new SetRefusal('invalid_request', 'the content is not application/secevent+jwt')
    const token = await readBody(request)
    const named = issuerIn(token)
    const sender = senders.find((each) => each.issuer === named)
    issuer = (sender ?? senders[0])?.issuer
    if (!sender) throw new SetRefusal('invalid_issuer', 'iss is not who sends it')
    await options.events.take(token, sender)
    response.writeHead(202).end()
  } catch (error) {
    const why = error instanceof SetRefusal ? error : Fault.from(error)
    options.onRefused(issuer, why)
    refuse(response, why)
  }
}

/** RFC 8935 s.2.3 and s.2.4; what is wrong with the receiver is told by status alone, so that it is sent again. */
function refuse(response: ServerResponse, why: SetRefusal | Fault): void {
  if (response.headersSent) return void response.destroy()
  if (why instanceof Fault) return void response.writeHead(503, { 'Retry-After': RETRY_AFTER }).end()
  const body = JSON.stringify({ err: why.code, description: DESCRIPTIONS[why.code] })
  const isUnknown = why.code === 'authentication_failed'
  const headers = { 'Content-Type': 'application/json', 'Content-Language': 'en', Connection: 'close' }
  const challenge = isUnknown ? { 'WWW-Authenticate': 'Bearer' } : {}
  return void response.writeHead(isUnknown ? 401 : 400, { ...headers, ...challenge }).end(body)
}

/** Nothing of what was seen: who may know it has the audit. */
const DESCRIPTIONS: Readonly<Record<SetError, string>> = {
  invalid_request: 'the SET cannot be understood',
  invalid_key: 'the key of the SET is not known, or the signature is not by it',
  invalid_issuer: 'the issuer of the SET is not taken here',
  invalid_audience: 'the SET is for another receiver',
  authentication_failed: 'the transmitter is not known',
  access_denied: 'the subject is not given to this transmitter',
}

function authenticated(
  { transmitters }: EventPushOptions,
  { rawHeaders }: IncomingMessage,
): readonly Transmitter[] {
  const shown = rawHeaders.filter(
    (_value, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === 'authorization',
  )
  const [, token] = /^Bearer ([!-~]{1,4096})$/i.exec(shown[0] ?? '') ?? []
  const pushing = transmitters().filter(({ poll }) => poll === undefined)
  const senders = token === undefined || shown.length > 1 ? [] : sendersOf(pushing, token)
  if (senders.length === 0) throw new SetRefusal('authentication_failed', 'no token of a transmitter')
  return senders
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > BODY_LIMIT) throw new SetRefusal('invalid_request', `the SET is over ${BODY_LIMIT} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('latin1').trim()
}
