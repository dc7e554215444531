/** The egress door's HTTP/1.1 side, on connections that were attested before. */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Fault } from '../base/fault.ts'
import type { Caller } from '../serve/caller.ts'
import type { HttpSide } from '../serve/http.ts'
import { type Paced, paced } from '../serve/paced.ts'
import { REQUEST, type Turns } from '../serve/turns.ts'
import { sendFault } from './answer.ts'
import { makeHttp1Server } from './http1-server.ts'
import { type ProxyOptions, serve } from './proxy.ts'

export interface Http1SideOptions extends ProxyOptions {
  readonly turns: Turns
}

/** Whose a connection is, and how it is heard. */
interface Connection {
  readonly caller: Caller
  readonly heard: Paced
}

/** Serves connections that are handed in. */
export function openHttp1Side(options: Http1SideOptions): HttpSide {
  const connections = new WeakMap<Duplex, Connection>()
  const server = makeHttp1Server({
    headerTimeout: options.headerTimeout,
    serve: (incoming) => {
      const { request, response } = incoming
      const refuse = (fault: Fault) => sendFault(request, response, fault)
      const { caller, heard } = connections.get(request.socket) ?? {}
      if (caller) options.turns.spend(caller.owner, REQUEST)
      heard?.expect(incoming.upgrade ? Number.POSITIVE_INFINITY : lengthOf(request))
      void serve(options, caller, { ...incoming, refuse })
    },
  })
  // Deadlines, and closing what is open, begin with listening; this server only gets connections handed in.
  server.emit('listening')
  return {
    inject: (connection: Socket, caller) => {
      const heard = paced(connection, options.turns.of(caller.owner))
      connections.set(heard.near, { caller, heard })
      server.emit('connection', heard.near)
    },
    drain: () => server.closeIdleConnections(),
    stop: () => server.closeAllConnections(),
  }
}

/** Of a body whose length is said. */
function lengthOf({ headers }: IncomingMessage): number {
  return Number(headers['content-length'] ?? 0)
}
