/**
 * `holdfast sidecar` put together: a loopback port for clients without unix sockets. Whoever shows the secret speaks as
 * this process: its attested identity, and no other, is what the agent decides by.
 */
import type { IncomingMessage } from 'node:http'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { firstOf } from '../egress/headers.ts'
import { EgressWay } from './egress-way.ts'
import type { SidecarSecret } from './secret.ts'
import { close, listen, makeRelay } from './server.ts'
import { Targets } from './targets.ts'

export interface SidecarOptions {
  /** A loopback address; port 0 takes any. */
  readonly listen: { readonly host: string; readonly port: number }
  readonly secret: SidecarSecret
  readonly workloadSocket: string
  readonly egressSocket: string
  readonly clock: Clock
  /** How long a request waits for an agent. */
  readonly patience?: Millis
}

/** A running sidecar. */
export interface Sidecar {
  readonly port: number
  /** Lets requests end for a while, then ends them. */
  stop(): Promise<void>
}

const LIMITS = {
  connections: 256,
  headerTimeout: 5_000,
  idleTimeout: 900_000,
  bufferBytes: 64 * 1024,
}
const PATIENCE: Millis = 10_000
const GRACE: Millis = 5_000

/** Opens the port; throws socket_unusable. */
export async function openSidecar(options: SidecarOptions): Promise<Sidecar> {
  const { clock, egressSocket, patience = PATIENCE, secret, workloadSocket } = options
  const { connections } = LIMITS
  const egress = new EgressWay({ path: egressSocket, clock, connections, patience })
  const targets = new Targets({ socket: workloadSocket, clock, patience })
  const relay = makeRelay({
    clock,
    limits: LIMITS,
    checkSender: (request) => checkSender(request, secret),
    checkRequest: () => {},
    wayFor: async (route, signal) => (await targets.find(route, signal)) ?? egress,
  })
  await listen(relay, options.listen)
  const address = relay.server.address()
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    stop: async () => {
      await close(relay, clock, GRACE)
      targets.stop()
      egress.stop()
    },
  }
}

const LOOPBACK = /^(?:127(?:\.\d{1,3}){3}|::1|::ffff:127(?:\.\d{1,3}){3})$/

/** The secret first: whoever does not have it hears nothing else. Origin and Sec-Fetch are refused with the headers. */
function checkSender({ rawHeaders: raw, socket }: IncomingMessage, secret: SidecarSecret): void {
  if (!LOOPBACK.test(socket.remoteAddress ?? ''))
    throw new Fault('secret_refused', 'requests from other machines are refused')
  secret.check(raw)
  if (firstOf(raw, 'referer') !== undefined) throw new Fault('browser_refused')
}
