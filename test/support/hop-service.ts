/**
 * A service of the chain: HTTPS on loopback, each request told to the verifier of its node before anything is done.
 * What it does with a verified one is the test's; with a flaw it lets in what the verifier refuses.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Reason } from '../../src/base/fault.ts'
import { call } from './call.ts'
import { believes, type Flaw, forgives } from './probed-service.ts'
import type { TestCa } from './tls.ts'

/** What the verifier told of a request that it let in; empty where a flaw let it in. */
export interface Told {
  readonly route?: string
  readonly hop?: string
  readonly caller?: {
    readonly subject?: string
    readonly client_id?: string
    readonly actors: readonly string[]
  }
  readonly handle?: string
}

/** What the service does for its caller: a status and a JSON body. */
export type Work = (told: Told, request: IncomingMessage) => Promise<readonly [status: number, body: object]>

export interface HopServiceOptions {
  readonly ca: TestCa
  readonly route: string
  /** Sockets of verifiers, asked in turn: those of nodes that a balancer spreads requests over. */
  readonly verifiers: () => readonly string[]
  readonly flaws?: readonly Flaw[]
  /** The one peer whose requests the flaws are about, such as a gateway that is trusted; everybody's when absent. */
  readonly trusted?: string | undefined
  readonly work?: Work
}

export interface HopService extends AsyncDisposable {
  readonly port: number
  readonly origin: string
  /** Why requests were refused, in order. */
  readonly refused: readonly string[]
  /** Connections so far. */
  readonly accepted: number
}

const COOKIE = 'session=1234; Secure; HttpOnly'

export async function startHopService(options: HopServiceOptions): Promise<HopService> {
  const { ca, trusted, work = async (told) => [200, told] } = options
  const flawsFor = ({ socket }: IncomingMessage): readonly Flaw[] =>
    trusted === undefined || trusted === socket.remoteAddress ? (options.flaws ?? []) : []
  const refused: string[] = []
  let accepted = 0
  let turn = 0
  const server = createServer(ca.serverFiles())
  server.on('secureConnection', () => {
    accepted += 1
  })
  const admit = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const flaws = flawsFor(incoming)
    if (believes(flaws, incoming.headers)) return {}
    const sockets = options.verifiers()
    turn += 1
    const answer = await call(sockets[turn % sockets.length] ?? '', 'POST', '/v1/verify', {
      body: questionOf(options.route, incoming),
    })
    if (answer.status === 200) return answer.body as Told
    const reason = String(answer.body.error.reason) as Reason
    refused.push(reason)
    if (forgives(flaws, reason, incoming.headers)) return {}
    const { status = answer.status, headers = {} } = answer.body.challenge ?? {}
    outgoing.writeHead(status, headers).end()
    return undefined
  }
  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const told = await admit(incoming, outgoing)
    if (!told) return
    const [status, body] = await work(told, incoming)
    if (flawsFor(incoming).includes('cookie')) outgoing.setHeader('Set-Cookie', COOKIE)
    outgoing.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  }
  server.on('request', (incoming, outgoing) => {
    serve(incoming, outgoing).catch(() => outgoing.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    port,
    origin: `https://localhost:${port}`,
    refused,
    get accepted() {
      return accepted
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The request as it arrived: raw headers, and who was at the other end of the connection. */
function questionOf(route: string, { method, url = '', rawHeaders, socket }: IncomingMessage): object {
  const headers = rawHeaders.flatMap((name, at) => (at % 2 === 0 ? [[name, rawHeaders[at + 1] ?? '']] : []))
  const certificate = (socket as TLSSocket).getPeerX509Certificate()?.raw.toString('base64')
  const peer = { address: socket.remoteAddress, ...(certificate === undefined ? {} : { certificate }) }
  return { route, method, path: url, headers, peer }
}
