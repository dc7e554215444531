/** One request of the lab: to the host it was told and to no other, bounded in time and size, never redirected. */
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { Millis } from '../base/clock.ts'
import { type Answer, noAnswer, readAnswer } from './answer.ts'

/** Names and values; a name may be there twice. */
export type Fields = readonly (readonly [name: string, value: string])[]

export interface Sending {
  readonly method: 'GET' | 'HEAD'
  readonly url: string
  /** What `Host` says; the host of `url` when absent. */
  readonly host?: string
  readonly fields: Fields
  /** Roots in PEM instead of the system's. */
  readonly roots: string | undefined
}

const PATIENCE: Millis = 15_000
const BODY_LIMIT = 1024 * 1024
const HEAD_LIMIT = 64 * 1024

/** Never rejects: that there was no answer is an answer. */
export function send({ method, url, host, fields, roots }: Sending): Promise<Omit<Answer, 'record'>> {
  const place = new URL(url)
  const headers = [['Host', host ?? place.host] as const, ...fields].flat()
  const options = {
    method,
    headers: headers as unknown as string[],
    agent: false,
    timeout: PATIENCE,
    maxHeaderSize: HEAD_LIMIT,
    ...(roots === undefined ? {} : { ca: roots }),
  }
  return new Promise((resolve) => {
    const answer = (response: IncomingMessage) => {
      const read = readAnswer(response.statusCode ?? 0, response.headers)
      resolve({ ...read, failure: undefined, isOwnFailure: false })
      drop(response)
    }
    const sent =
      place.protocol === 'https:' ? requestHttps(url, options, answer) : requestHttp(url, options, answer)
    sent.on('timeout', () => sent.destroy())
    sent.on('error', (error) => resolve(failureOf(error)))
    sent.end()
  })
}

/** The body is none of the lab's business. */
function drop(response: IncomingMessage): void {
  let size = 0
  response.on('error', () => {})
  response.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > BODY_LIMIT) response.destroy()
  })
}

/** What nobody but the lab is kept out by. An alert is the word of the other end. */
const OWN =
  /^(?:CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|HOSTNAME_|ERR_TLS_|ERR_SSL_(?!.*ALERT)|HPE_|ENOTFOUND|EAI_)/

/** The code alone: messages of libraries quote what they were sent. */
function failureOf(error: Error): Omit<Answer, 'record'> {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  if (code === 'ECONNRESET')
    return noAnswer('the connection ended before an answer, or none came in time', false)
  const isCode = /^[A-Z0-9_]{1,64}$/.test(code)
  return noAnswer(isCode ? `no connection (${code})` : 'no connection', !isCode || OWN.test(code))
}
