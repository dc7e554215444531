/**
 * The server of a relay: HTTP/1.1, as strict as the egress door, since what it lets through is read once more there.
 * Every refusal carries Holdfast-Reason; nothing of a request is logged.
 */
import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { sendFault } from '../egress/answer.ts'
import { type Incoming, makeHttp1Server } from '../egress/http1-server.ts'
import { Lifeline } from '../egress/lifeline.ts'
import { parseRoute, type Route } from '../egress/route.ts'
import { checkHandshake } from '../egress/websocket.ts'
import { carry, tunnel } from './carry.ts'
import type { Relayed, Way, WayOptions } from './way.ts'

export interface RelayOptions extends WayOptions {
  /** Throws unless the sender of `request` may use the relay; called before anything else. */
  readonly checkSender: (request: IncomingMessage) => void
  /** Throws unless the request may pass. */
  readonly checkRequest: (method: string, route: Route) => void
  /** The way for a request; throws what the agent says. */
  readonly wayFor: (route: Route, signal: AbortSignal) => Promise<Way>
}

/** A server and its open connections, upgraded ones too, which Node does not end by itself. */
export interface Relay {
  readonly server: Server
  readonly sockets: ReadonlySet<Socket>
}

/** A relay that is not listening yet. */
export function makeRelay(options: RelayOptions): Relay {
  const { headerTimeout, connections } = options.limits
  const server = makeHttp1Server({ headerTimeout, serve: (incoming) => void serve(options, incoming) })
  server.maxConnections = connections
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return { server, sockets }
}

async function serve(options: RelayOptions, { request, response, upgrade }: Incoming): Promise<void> {
  const { clock, limits } = options
  const line = new Lifeline(clock, limits.idleTimeout)
  response.once('close', () => response.writableFinished || line.end(new Fault('canceled')))
  request.on('error', () => {})
  try {
    options.checkSender(request)
    const { method = '', rawHeaders: raw, url = '' } = request
    const route = parseRoute({ url, raw })
    options.checkRequest(method, route)
    if (upgrade) checkHandshake(method, raw)
    const way = await options.wayFor(route, line.signal)
    const relayed: Relayed = { request, response, method, route, line }
    await (upgrade ? tunnel(options, way, relayed, upgrade) : carry(options, way, relayed))
  } catch (caught) {
    sendFault(request, response, Fault.from(line.signal.aborted ? line.signal.reason : caught))
  } finally {
    line.release()
  }
}

/** Listens; throws socket_unusable. */
export function listen(
  { server }: Relay,
  where: { readonly host: string; readonly port: number } | { readonly path: string },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const name = 'path' in where ? where.path : `${where.host}:${where.port}`
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new Fault('socket_unusable', `${name} cannot be listened on (${error.code ?? 'unknown'})`, {
          action: 'Name another port or directory, or end what listens there.',
          cause: error,
        }),
      ),
    )
    server.listen({ ...where }, () => resolve())
  })
}

/** No new connections; what is under way may end within `grace`, then is ended. Resolves when all have gone. */
export function close({ server, sockets }: Relay, clock: Clock, grace: Millis): Promise<void> {
  return new Promise((resolve) => {
    const cancel = clock.after(grace, () => {
      for (const socket of sockets) socket.destroy()
    })
    server.close(() => {
      cancel()
      resolve()
    })
    server.closeIdleConnections()
  })
}
