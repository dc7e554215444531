/** One JSON request over a unix socket, as curl sends it. */
import { type Agent, request } from 'node:http'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  // biome-ignore lint/suspicious/noExplicitAny: tests read members of answers they asserted on.
  readonly body: any
}

export interface CallOptions {
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** Keeps one connection for several calls. */
  readonly agent?: Agent
}

/** The answer of `method path` on `socket`, with the security header. */
export function call(
  socket: string,
  method: string,
  path: string,
  options: CallOptions = {},
): Promise<Answer> {
  const text = options.body === undefined ? undefined : JSON.stringify(options.body)
  const headers = {
    'workload.spiffe.io': 'true',
    ...(text === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }),
    ...options.headers,
  }
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath: socket, method, path, headers, agent: options.agent ?? false },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => {
          const body = Buffer.concat(chunks).toString('utf8')
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: parsed(body) })
        })
      },
    )
    outgoing.on('error', reject)
    outgoing.end(text)
  })
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
