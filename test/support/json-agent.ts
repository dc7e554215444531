/** An agent that answers its JSON doors as a test says: a real server on real sockets in a directory of its own. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Asked {
  readonly route: string
  readonly headers: IncomingMessage['headers']
  readonly body: unknown
}

/** An object is a 200; a function answers by itself. */
export type Answer = object | ((response: ServerResponse) => void)

export interface JsonAgent extends AsyncDisposable {
  readonly dir: string
  readonly socket: string
  readonly adminSocket: string
  readonly asked: Asked[]
  /** What is answered from now on, by `GET /v1/status`. */
  readonly routes: Record<string, Answer>
}

export async function startJsonAgent(routes: Record<string, Answer> = {}): Promise<JsonAgent> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
  const asked: Asked[] = []
  const server = () =>
    createServer(async (request, response) => {
      const route = `${request.method} ${request.url}`
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      const text = Buffer.concat(chunks).toString()
      asked.push({ route, headers: request.headers, body: text === '' ? undefined : JSON.parse(text) })
      const answer = routes[route] ?? refusal('not_found', 404)
      if (typeof answer === 'function') answer(response)
      else response.end(JSON.stringify(answer))
    })
  const paths = ['public/workload.sock', 'private/admin.sock'].map((name) => join(dir, name))
  const servers = paths.map(server)
  for (const [index, path] of paths.entries()) {
    mkdirSync(join(path, '..'), { mode: 0o755 })
    await new Promise<void>((resolve) => servers[index]?.listen(path, resolve))
  }
  return {
    dir,
    socket: paths[0] ?? '',
    adminSocket: paths[1] ?? '',
    asked,
    routes,
    [Symbol.asyncDispose]: async () => {
      for (const each of servers) {
        each.closeAllConnections()
        await new Promise((resolve) => each.close(resolve))
      }
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** An error as the agent words it. */
export function refusal(reason: string, status: number, more: object = {}): Answer {
  return (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...more })
    response.end(
      JSON.stringify({
        error: { reason, message: `${reason} it is`, action: 'Do this.', owner: 'identity' },
      }),
    )
  }
}
