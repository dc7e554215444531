/** `holdfast request METHOD URL`: one request through the egress door, for people; the host of the URL names a target. */
import { readFileSync, statSync } from 'node:fs'
import { type IncomingMessage, request as send } from 'node:http'
import { dirname, join } from 'node:path'
import { TextDecoder } from 'node:util'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { faultOfAnswer } from '../client/http.ts'
import { findSocket } from '../client/socket.ts'
import { type Shown, type Where, workloadSocket } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json } from './render.ts'

export interface RequestOptions extends Where, Shown {
  /** The body, or `@FILE`, or `@-` for standard input. */
  readonly data?: string
  /** `Name: value` each. */
  readonly header?: readonly string[]
  readonly spiffeId?: string
}

const BODY_LIMIT = 16 * 1024 * 1024
const REFUSAL_LIMIT = 64 * 1024
const HEAD_MS: Millis = 300_000

/**
 * Prints the status line on standard error and the body on standard output, as it comes. The code is 1 where the
 * target answers with 400 or above; throws the agent's refusal.
 */
export async function request(
  method: string,
  url: string,
  options: RequestOptions,
  io: Io,
): Promise<ExitCode> {
  const { target, path } = parsePlace(url)
  if (!/^[A-Za-z]{1,32}$/.test(method))
    throw usage(`${JSON.stringify(method)} is no method`, 'Write GET or POST.')
  const body = options.data === undefined ? undefined : await bodyOf(options.data, io)
  const headers = ['Host', target, ...headersOf(options, body)]
  const response = await answerOf(await egressSocket(options, io), { method, path, headers }, body)
  const { statusCode: status = 0, headers: answered } = response
  if (answered['holdfast-reason'] !== undefined) {
    throw faultOfAnswer(await textOf(response, REFUSAL_LIMIT), status, answered['retry-after'])
  }
  if (options.output === 'json') io.out(json(await shownAsJson(response)))
  else await pour(response, io)
  return status < 400 ? EXIT.ok : EXIT.failed
}

function usage(message: string, action: string): Fault {
  return new Fault('usage', message, { action })
}

const PLACE = /^http:\/\/([^/?#]+)(\/[\x21-\x22\x24-\x7e]*)?$/

/** The name of the target and the path as written: nothing is normalised before policy sees it. */
function parsePlace(url: string): { readonly target: string; readonly path: string } {
  const [whole, target = '', path = '/'] = PLACE.exec(url) ?? []
  if (whole !== undefined) return { target, path }
  const message = url.startsWith('https:')
    ? 'the URL begins with https:, and it is the agent that speaks TLS to the target'
    : 'the URL is not http://TARGET/PATH'
  throw usage(message, 'Write http://TARGET/PATH, where TARGET is the name of a target in the policy.')
}

async function bodyOf(data: string, io: Io): Promise<Buffer> {
  if (!data.startsWith('@')) return Buffer.from(data)
  const file = data.slice(1)
  return file === '-' ? Buffer.from(await io.input()) : readBody(file)
}

function readBody(file: string): Buffer {
  try {
    if (statSync(file).size <= BODY_LIMIT) return readFileSync(file)
  } catch (error) {
    throw new Fault('usage', `${file}: cannot be read`, {
      action: 'Name a file that this user may read, or @- for standard input.',
      cause: error,
    })
  }
  throw usage(`${file} is over ${BODY_LIMIT} bytes`, 'Send it by curl --unix-socket DIR/public/egress.sock.')
}

function headersOf({ header = [], spiffeId }: RequestOptions, body: Buffer | undefined): readonly string[] {
  const given = header.flatMap(parseHeader)
  const hasType = given.some((text, index) => index % 2 === 0 && text.toLowerCase() === 'content-type')
  return [
    ...given,
    ...(body && !hasType ? ['Content-Type', typeOf(body)] : []),
    ...(body ? ['Content-Length', String(body.length)] : []),
    ...(spiffeId === undefined ? [] : ['Holdfast-Spiffe-Id', spiffeId]),
  ]
}

function parseHeader(line: string, index: number): readonly string[] {
  const [, name, value] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e]*)$/.exec(line) ?? []
  if (name !== undefined && value !== undefined) return [name, value.trim()]
  throw usage(`header ${index + 1} is not "Name: value"`, "Write -H 'Accept: application/json', for example.")
}

function typeOf(body: Buffer): string {
  try {
    JSON.parse(body.toString('utf8'))
    return 'application/json'
  } catch {
    return 'application/octet-stream'
  }
}

/** The egress socket, which stands beside the workload socket; throws unimplemented where the door is off. */
export async function egressSocket(options: Where, io: Io): Promise<string> {
  const path = join(dirname(await workloadSocket(options, io)), 'egress.sock')
  try {
    return await findSocket([{ path, from: 'beside the workload socket' }])
  } catch (error) {
    throw new Fault('unimplemented', `the agent has no egress door at ${path}`, {
      action: 'Set `egress: { socket: on }` in the configuration and start the agent again.',
      owner: 'agent',
      cause: error,
    })
  }
}

interface Head {
  readonly method: string
  readonly path: string
  readonly headers: string[]
}

function answerOf(socketPath: string, head: Head, body: Buffer | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = send({ socketPath, ...head, agent: false, timeout: HEAD_MS }, (response) => {
      // An event stream may be silent for any time.
      response.socket.setTimeout(0)
      resolve(response)
    })
    sent.on('timeout', () => sent.destroy(new Fault('deadline', `no answer within ${HEAD_MS / 1000} s`)))
    sent.on('error', (error) => reject(cutOff(error)))
    sent.end(body)
  })
}

function cutOff(error: unknown): Fault {
  if (error instanceof Fault) return error
  return new Fault('agent_unreachable', 'the connection ended before the answer did', {
    action: 'Try again; `holdfast watch` shows why the agent ends a connection.',
    cause: error,
  })
}

async function* chunksOf(response: IncomingMessage): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of response) yield chunk as Buffer
  } catch (error) {
    throw cutOff(error)
  }
}

/** The whole body; throws usage when it is over `limit` bytes. */
async function textOf(response: IncomingMessage, limit: number): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of chunksOf(response)) {
    size += chunk.length
    if (size > limit)
      throw usage(`the answer is over ${limit} bytes`, 'Leave out -o json: it is not kept then.')
    chunks.push(chunk)
  }
  return decode(new TextDecoder('utf-8', { fatal: true }), Buffer.concat(chunks), false)
}

async function pour(response: IncomingMessage, io: Io): Promise<void> {
  io.err(
    shown(`HTTP/${response.httpVersion} ${response.statusCode} ${response.statusMessage ?? ''}`.trim(), true),
  )
  io.err('\n')
  const decoder = new TextDecoder('utf-8', { fatal: true })
  for await (const chunk of chunksOf(response)) io.out(shown(decode(decoder, chunk, true), io.isTerminal))
  io.out(shown(decode(decoder, Buffer.alloc(0), false), io.isTerminal))
}

function decode(decoder: TextDecoder, bytes: Buffer, stream: boolean): string {
  try {
    return decoder.decode(bytes, { stream })
  } catch {
    throw usage('the answer is not text', 'Fetch it by curl --unix-socket DIR/public/egress.sock.')
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: a target must not drive the reader's terminal.
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g

function shown(text: string, isTerminal: boolean): string {
  return isTerminal ? text.replace(CONTROL, (found) => (found === '\r' ? '' : '\ufffd')) : text
}

async function shownAsJson(response: IncomingMessage): Promise<object> {
  const { statusCode: status, headers } = response
  return { status, headers, body: await textOf(response, BODY_LIMIT) }
}
