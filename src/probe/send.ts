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
  readonly fields: Fields
  /** Roots in PEM instead of the system's. */
  readonly roots: string | undefined
}

const PATIENCE: Millis = 15_000
const BODY_LIMIT = 1024 * 1024
const HEAD_LIMIT = 64 * 1024

/** Never rejects: that there was no answer is an answer. */
export function send({ method, url, fields, roots }: Sending): Promise<Omit<Answer, 'record'>> {
  const place = new URL(url)
  const headers = [['Host', place.host] as const, ...fields].flat()
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
      resolve({ ...readAnswer(response.statusCode ?? 0, response.headers), failure: undefined })
      drop(response)
    }
    const sent =
      place.protocol === 'https:' ? requestHttps(url, options, answer) : requestHttp(url, options, answer)
    sent.on('timeout', () => sent.destroy())
    sent.on('error', (error) => resolve(noAnswer(failureText(error))))
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

/** The code alone: messages of libraries quote what they were sent. */
function failureText(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  if (code === 'ECONNRESET') return 'the connection ended before an answer, or none came in time'
  return /^[A-Z0-9_]{1,64}$/.test(code) ? `no connection (${code})` : 'no connection'
}
