/** `holdfast sidecar`: the loopback port of a pod, for clients without unix sockets. */
import { dirname, join } from 'node:path'
import { backoff } from '../base/backoff.ts'
import { systemClock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { forbidCoreFiles } from '../base/native.ts'
import { checkNetwork } from '../relay/network.ts'
import { openSecret } from '../relay/secret.ts'
import { openSidecar } from '../relay/sidecar.ts'
import { type Shown, type Where, workloadSocket } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json } from './render.ts'

export interface SidecarCommand extends Where, Shown {
  readonly port?: string
  readonly listen?: string
  readonly secretFile: string
  readonly allowHostNetwork?: boolean
}

const PORT = /^(?:0|[1-9]\d{0,4})$/
const PLACE = /^(127\.0\.0\.1|\[::1\]):(\d{1,5})$/
const PORT_LIMIT = 65_535
const FIRST_WAIT = 250
const LONGEST_WAIT = 5_000

/** Serves until SIGTERM or Ctrl-C; throws usage, socket_unusable. */
export async function sidecar(options: SidecarCommand, io: Io): Promise<ExitCode> {
  const place = parseListen(options)
  checkNetwork(options.allowHostNetwork ?? false)
  const secret = openSecret(options.secretFile)
  // Headers of requests pass through here.
  forbidCoreFiles()
  const stopped = io.interrupted()
  const socket = await agentSocket(options, io, stopped)
  if (socket === undefined) return EXIT.ok
  const running = await openSidecar({
    listen: place,
    secret,
    workloadSocket: socket,
    egressSocket: join(dirname(socket), 'egress.sock'),
    clock: systemClock,
  })
  const host = place.host === '::1' ? '[::1]' : place.host
  const said = { listening: `${host}:${running.port}`, pid: process.pid }
  io.out(options.output === 'json' ? json(said) : `listening on http://${said.listening}\n`)
  await aborted(stopped)
  await running.stop()
  return EXIT.ok
}

/** Loopback only: anything else would be a door to the network. */
export function parseListen({ listen, port }: Pick<SidecarCommand, 'listen' | 'port'>): {
  readonly host: string
  readonly port: number
} {
  if ((listen === undefined) === (port === undefined))
    throw usage('wanted is either --port or --listen', 'Write --port 8181, for example.')
  if (port !== undefined) {
    if (PORT.test(port) && Number(port) <= PORT_LIMIT) return { host: '127.0.0.1', port: Number(port) }
    throw usage(`${JSON.stringify(port)} is no port`, 'Write a number up to 65535.')
  }
  const [, host = '', digits = ''] = PLACE.exec(listen ?? '') ?? []
  if (host === '' || Number(digits) > PORT_LIMIT)
    throw usage(
      `${JSON.stringify(listen)} is no loopback address with a port`,
      'Write 127.0.0.1:8181 or [::1]:8181: the port is for this machine only.',
    )
  return { host: host === '[::1]' ? '::1' : host, port: Number(digits) }
}

function usage(message: string, action: string): Fault {
  return new Fault('usage', message, { action })
}

/** The workload socket, once an agent answers there; undefined when stopped before. */
async function agentSocket(where: Where, io: Io, stopped: AbortSignal): Promise<string | undefined> {
  for (let attempt = 0; !stopped.aborted; attempt++) {
    try {
      return await workloadSocket(where, io)
    } catch (caught) {
      const fault = Fault.from(caught)
      if (fault.reason !== 'agent_unreachable') throw fault
      if (attempt === 0) io.err(`waiting for an agent: ${fault.action}\n`)
      await io.sleep(backoff(attempt, FIRST_WAIT, LONGEST_WAIT))
    }
  }
  return undefined
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
