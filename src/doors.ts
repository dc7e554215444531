/** The sockets of an agent: which service answers behind which of them, and to whom. */
import type { Socket } from 'node:net'
import type { AttestedWorkload } from './attest/identify.ts'
import type { Millis } from './base/clock.ts'
import type { Fault } from './base/fault.ts'
import type { Core, CoreOptions } from './core.ts'
import { workloadApi } from './issue/workload-api.ts'
import { type AdminApiOptions, adminApi } from './operate/admin-api.ts'
import { adminDoor } from './serve/admin-door.ts'
import type { Directories } from './serve/directories.ts'
import { openDoor } from './serve/door.ts'
import { openGrpc } from './serve/grpc.ts'
import { openHttp } from './serve/http.ts'
import { UidLimits } from './serve/limits.ts'
import { type ListeningSocket, openSocket } from './serve/socket-path.ts'
import { jsonApi } from './sign/json-api.ts'
import { proofApi } from './sign/proof-api.ts'

export interface DoorsOptions extends CoreOptions {
  readonly directories: Directories
  readonly takeover: boolean
  /** Descriptors that systemd listens on, by name. */
  readonly listening: ReadonlyMap<string, number>
  /** Throws not_ready or draining. */
  readonly admit: () => void
  readonly admin: Omit<AdminApiOptions, 'audit' | 'log' | 'attestation' | 'book' | 'revoke' | 'contacts'>
  readonly onTaken: () => void
  readonly onBack: () => void
}

/** The open doors. */
export interface Doors {
  readonly connections: () => number
  addStandardServices(): void
  /** Takes the paths over, where a live agent had them. */
  publish(): void
  /** Sends everybody away: GOAWAY, no new connections. Sockets stay bound when `stay`, as for a passive agent. */
  leave(grace: Millis, stay: boolean): void
  stop(): void
}

const ADMIN_CONNECTIONS = 32
const MILLIS = 1000

/** Binds the sockets; they answer at once, through `admit`. Throws agent_running, socket_unusable. */
export async function openDoors(options: DoorsOptions, core: Core): Promise<Doors> {
  const { clock, config } = options
  const { connectionsPerUid, connections } = config.limits
  const limits = new UidLimits('connections', 'too_many_connections', connectionsPerUid, connections)
  const headerTimeout = config.limits.headerTimeout * MILLIS
  const { grpc, http } = workloadSides(options, core, headerTimeout)
  const accept = openDoor({
    limits,
    attest: (fd) => attestUnlessRevoked(core, fd),
    grpc,
    http,
    clock,
    firstBytesTimeout: headerTimeout,
    onConnection: (fault) => countConnection(options, fault),
  })
  const admin = adminHttp(options, core, headerTimeout)
  const sockets = await openSockets(options, accept, adminDoor(admin, adminLimits()))
  const closeSockets = () => {
    for (const socket of sockets) socket.close()
  }
  return {
    connections: () => limits.all,
    addStandardServices: () => grpc.addStandardServices(),
    publish: () => {
      for (const socket of sockets) socket.publish()
    },
    leave: (grace, stay) => {
      if (!stay) closeSockets()
      grpc.drain(grace)
      http.drain()
    },
    stop: () => {
      closeSockets()
      grpc.stop()
      http.stop()
      admin.stop()
    },
  }
}

type Accept = (socket: Socket) => void

/** Only the workload socket says who serves: the admin socket follows it. */
async function openSockets(
  options: DoorsOptions,
  accept: Accept,
  acceptAdmin: Accept,
): Promise<readonly ListeningSocket[]> {
  const { clock, directories, listening, onBack, onTaken, takeover } = options
  const workload = await openSocket({
    clock,
    takeover,
    path: directories.workloadSocket,
    mode: 0o777,
    accept,
    fd: listening.get('workload'),
    onTaken,
    onBack,
  })
  const admin = await openSocket({
    clock,
    takeover,
    path: directories.adminSocket,
    mode: 0o600,
    accept: acceptAdmin,
    fd: listening.get('admin'),
    onTaken: () => {},
    onBack: () => {},
  })
  return [workload, admin]
}

function adminLimits(): UidLimits {
  return new UidLimits('connections', 'too_many_connections', ADMIN_CONNECTIONS, ADMIN_CONNECTIONS)
}

/** A revoked process stays revoked on its next connection. */
function attestUnlessRevoked({ attestation, revocations }: Core, fd: number): AttestedWorkload {
  const workload = attestation.attest(fd)
  try {
    revocations.check([['process', workload.peer.process.key]])
    return workload
  } catch (caught) {
    workload.close()
    throw caught
  }
}

function workloadSides(options: DoorsOptions, core: Core, headerTimeout: Millis) {
  const { config, audit, authority, clock, metrics, admit } = options
  const { book, revocations, rotator, signing, svids, vault, jwt, wit } = core
  const proofs = {
    signing,
    vault,
    revocations,
    audit,
    watch: (changed: () => void) => rotator.watch(changed),
  }
  const onCall = (method: string, fault: Fault | undefined) =>
    metrics.count('holdfast_requests_total', { method, reason: fault?.reason ?? 'ok' })
  const grpc = openGrpc(
    {
      SpiffeWorkloadAPI: workloadApi({
        svids,
        authority,
        rotator,
        book,
        revocations,
        audit,
        clock,
        wit,
        jwt,
      }),
      'holdfast.v1.ProofService': proofApi(proofs),
    },
    {
      admit,
      onCall,
      streamsPerConnection: config.limits.streamsPerConnection,
      calls: new UidLimits('calls', 'too_many_calls', config.limits.callsPerUid, config.limits.calls),
    },
  )
  const routes = jsonApi({ ...proofs, book, trustDomain: config.trustDomain, contacts: config.owners })
  const http = openHttp({ routes, admit, onCall, securityHeader: true, headerTimeout })
  return { grpc, http }
}

function adminHttp(options: DoorsOptions, core: Core, headerTimeout: Millis) {
  const { admin, audit, config, log } = options
  const { attestation, book, revoking } = core
  const routes = adminApi({
    ...admin,
    audit,
    log,
    attestation,
    book,
    revoke: revoking,
    contacts: config.owners,
  })
  return openHttp({ routes, admit: () => {}, onCall: () => {}, securityHeader: false, headerTimeout })
}

function countConnection({ metrics }: DoorsOptions, fault: Fault | undefined): void {
  metrics.count('holdfast_connections_total', { reason: fault?.reason ?? 'ok' })
}
