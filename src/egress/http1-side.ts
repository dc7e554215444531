/** The egress door's HTTP/1.1 side, on connections that were attested before. */
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Fault } from '../base/fault.ts'
import type { Caller } from '../serve/caller.ts'
import type { HttpSide } from '../serve/http.ts'
import { sendFault } from './answer.ts'
import { makeHttp1Server } from './http1-server.ts'
import { type ProxyOptions, serve } from './proxy.ts'

/** Serves connections that are handed in. */
export function openHttp1Side(options: ProxyOptions): HttpSide {
  const callers = new WeakMap<Duplex, Caller>()
  const server = makeHttp1Server({
    headerTimeout: options.headerTimeout,
    serve: (incoming) => {
      const { request, response } = incoming
      const refuse = (fault: Fault) => sendFault(request, response, fault)
      void serve(options, callers.get(request.socket), { ...incoming, refuse })
    },
  })
  // Deadlines, and closing what is open, begin with listening; this server only gets connections handed in.
  server.emit('listening')
  return {
    inject: (connection: Socket, caller) => {
      callers.set(connection, caller)
      server.emit('connection', connection)
    },
    drain: () => server.closeIdleConnections(),
    stop: () => server.closeAllConnections(),
  }
}
