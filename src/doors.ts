/** The sockets of an agent: which service answers behind which of them, and to whom. */
import type { AttestedWorkload } from './attest/identify.ts'
import type { Millis } from './base/clock.ts'
import type { Fault } from './base/fault.ts'
import type { Core, CoreOptions } from './core.ts'
import { releaseHandlers, releaseRoutes } from './egress/release-api.ts'
import { subjectHandlers, subjectRoutes } from './egress/subject-api.ts'
import { targetRoutes } from './egress/target-facts.ts'
import { openEnvoySide } from './envoy.ts'
import { workloadApi } from './issue/workload-api.ts'
import { type AdminApiOptions, adminApi } from './operate/admin-api.ts'
import type { Outgoing, OutgoingLimits } from './outgoing.ts'
import { adminDoor } from './serve/admin-door.ts'
import { linkAliases } from './serve/aliases.ts'
import type { Accept } from './serve/arrivals.ts'
import type { Directories } from './serve/directories.ts'
import { type DoorOptions, openDoor } from './serve/door.ts'
import { openGrpc } from './serve/grpc.ts'
import { openHttp } from './serve/http.ts'
import { OwnerLimits } from './serve/limits.ts'
import { type ListeningSocket, openSocket } from './serve/socket-path.ts'
import { Turns } from './serve/turns.ts'
import { jsonApi } from './sign/json-api.ts'
import { proofApi } from './sign/proof-api.ts'

export interface DoorsOptions extends CoreOptions {
  readonly directories: Directories
  readonly takeover: boolean
  /** Descriptors that systemd listens on, by name. */
  readonly listening: ReadonlyMap<string, number>
  /** Throws not_ready or draining. */
  readonly admit: () => void
  readonly admin: Omit<
    AdminApiOptions,
    'approvals' | 'audit' | 'log' | 'attestation' | 'book' | 'revoke' | 'contacts'
  >
  readonly onTaken: () => void
  readonly onBack: () => void
}

/** The open doors. */
export interface Doors {
  readonly connections: () => number
  /** Of the verifier over TCP, when it is on. */
  readonly verifierPort: number | undefined
  addStandardServices(): void
  /** Takes the paths over, where a live agent had them. */
  publish(): void
  /** Whether a newcomer has the paths. */
  isTaken(): boolean
  /** Sends everybody away: GOAWAY, no new connections. Sockets stay bound when `stay`, as for a passive agent. */
  leave(grace: Millis, stay: boolean): void
  /** Gives tokens back to their servers, for `limit` at most. */
  giveBack(limit: Millis): Promise<void>
  stop(): void
}

const ADMIN_CONNECTIONS = 32
/** All headers of a request, as JSON. */
const QUESTION_LIMIT = 256 * 1024
const MILLIS = 1000

/** Binds the sockets; they answer at once, through `admit`. Throws agent_running, socket_unusable. */
export async function openDoors(options: DoorsOptions, core: Core): Promise<Doors> {
  const { clock, config } = options
  const { connectionsPerUid, connections } = config.limits
  const limits = new OwnerLimits('connections', 'too_many_connections', connectionsPerUid, connections)
  const headerTimeout = config.limits.headerTimeout * MILLIS
  const calls = new OwnerLimits('calls', 'too_many_calls', config.limits.callsPerUid, config.limits.calls)
  const shared = { headerTimeout, calls, turns: new Turns() }
  const sending = lazyOutgoing(options, core, shared)
  const { drainEnvoy, grpc, http } = workloadSides(options, core, sending.load, shared)
  const admin = adminSides(options, core, shared)
  const egress = config.egress.socket === 'on' ? (await sending.load()).door : undefined
  const verifier =
    config.verifier.socket === 'on' || config.verifier.listen
      ? await verifierSides(options, core, sending.load, { ...shared, limits })
      : undefined
  const accept = (sides: Sides) => acceptInto(options, core, { limits, turns: shared.turns }, sides)
  const sockets = await openSockets(options, {
    workload: accept({ grpc, http, isBulk: false }),
    egress: egress && accept({ http: egress, http2: egress.http2, isBulk: true }),
    verifier:
      verifier && config.verifier.socket === 'on' ? accept({ ...verifier, isBulk: false }) : undefined,
    admin: adminDoor({ ...admin, limits: adminLimits(), clock, firstBytesTimeout: headerTimeout }),
  })
  const closeSockets = () => {
    verifier?.tcp?.close()
    for (const socket of sockets) socket.close()
  }
  return {
    connections: () => limits.all,
    verifierPort: verifier?.tcp?.port,
    addStandardServices: () => grpc.addStandardServices(),
    publish: () => {
      for (const socket of sockets) socket.publish()
      for (const socket of linkAliases(options.directories.workloadSocket, config.socketAliases))
        options.log.warn('somebody else had a socket under one of socket_aliases: it was replaced', {
          socket,
        })
    },
    isTaken: () => sockets[0]?.isTaken() ?? false,
    leave: (grace, stay) => {
      if (!stay) closeSockets()
      drainEnvoy()
      grpc.drain(grace)
      http.drain()
      egress?.drain()
      verifier?.drain(grace)
    },
    giveBack: sending.giveBack,
    stop: () => {
      closeSockets()
      grpc.stop()
      http.stop()
      verifier?.stop()
      sending.stop()
      admin.http.stop()
      admin.grpc.stop()
    },
  }
}

/** Loaded when it is first needed: an agent that only signs starts a third sooner, and 3 MB smaller, without. */
function lazyOutgoing(options: DoorsOptions, core: Core, limits: OutgoingLimits) {
  let loading: Promise<Outgoing> | undefined
  let loaded: Outgoing | undefined
  const open = async () => {
    const { openOutgoing } = await import('./outgoing.ts')
    loaded = openOutgoing(options, core, options.admit, limits)
    return loaded
  }
  const load = () => {
    loading ??= open()
    return loading
  }
  const giveBack = async (limit: Millis) => loaded?.giveBack(limit)
  return { load, giveBack, stop: () => loaded?.stop() }
}

type Sides = Pick<DoorOptions, 'grpc' | 'http' | 'http2' | 'isBulk'>

/** Every public socket attests alike and counts into the same limits. */
function acceptInto(
  options: DoorsOptions,
  core: Core,
  held: Pick<DoorOptions, 'limits' | 'turns'>,
  sides: Sides,
): Accept {
  return openDoor({
    ...sides,
    ...held,
    ownerOf: (pid, uid) => core.attestation.ownerOf(pid, uid),
    attest: (fd) => attestUnlessRevoked(core, fd),
    clock: options.clock,
    firstBytesTimeout: options.config.limits.headerTimeout * MILLIS,
    onConnection: (fault) => countConnection(options, fault),
  })
}

interface Accepts {
  readonly workload: Accept
  readonly egress: Accept | undefined
  readonly verifier: Accept | undefined
  readonly admin: Accept
}

/** Only the workload socket says who serves: the others follow it. */
async function openSockets(options: DoorsOptions, accepts: Accepts): Promise<readonly ListeningSocket[]> {
  const { clock, directories, listening, takeover } = options
  const { egressSocket, adminSocket, verifierSocket, workloadSocket } = directories
  const ignore = () => {}
  const open = (
    name: string,
    path: string,
    mode: number,
    accept: Accept,
    onTaken = ignore,
    onBack = ignore,
  ) => openSocket({ clock, takeover, path, mode, accept, fd: listening.get(name), onTaken, onBack })
  const workload = await open(
    'workload',
    workloadSocket,
    0o777,
    accepts.workload,
    options.onTaken,
    options.onBack,
  )
  const egress = accepts.egress && (await open('egress', egressSocket, 0o777, accepts.egress))
  const verifier = accepts.verifier && (await open('verifier', verifierSocket, 0o777, accepts.verifier))
  const admin = await open('admin', adminSocket, 0o600, accepts.admin)
  return [workload, admin, ...(egress ? [egress] : []), ...(verifier ? [verifier] : [])]
}

function adminLimits(): OwnerLimits {
  return new OwnerLimits('connections', 'too_many_connections', ADMIN_CONNECTIONS, ADMIN_CONNECTIONS)
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

/** Loaded where it is switched on: at the start, since the replay store remembers from then on. */
async function verifierSides(
  options: DoorsOptions,
  core: Core,
  load: () => Promise<Outgoing>,
  { headerTimeout, calls, turns, limits: connections }: OutgoingLimits & { readonly limits: OwnerLimits },
) {
  const { admit, config, metrics } = options
  const { openIncoming } = await import('./incoming.ts')
  const subjects = async () => (await load()).subjects
  const { bundleOf, services, withoutHeader, routes, heads, stop } = await openIncoming(
    options,
    core,
    subjects,
  )
  const onCall = (name: string, fault: Fault | undefined) => countCall(metrics, name, fault)
  const { streamsPerConnection } = config.limits
  const grpc = openGrpc(services, {
    clock: options.clock,
    admit,
    onCall,
    streamsPerConnection,
    withoutHeader,
    calls,
    turns,
  })
  const limits = { headerTimeout, maxBodyBytes: QUESTION_LIMIT }
  const http = openHttp({ routes, heads, admit, onCall, securityHeader: true, calls, turns, ...limits })
  const onConnection = (fault: Fault | undefined) => countConnection(options, fault)
  const { openVerifierTcp } = await import('./incoming-tcp.ts')
  const tcp = await openVerifierTcp(options, core, {
    grpc,
    http,
    limits: connections,
    onConnection,
    bundleOf,
  })
  return {
    grpc,
    http,
    tcp,
    drain: (grace: Millis) => {
      grpc.drain(grace)
      http.drain()
    },
    stop: () => {
      tcp?.stop()
      grpc.stop()
      http.stop()
      stop()
    },
  }
}

/** Labels are words: `SignProof` of an RPC's full name, `dpop` of a route. */
function countCall(metrics: CoreOptions['metrics'], name: string, fault: Fault | undefined): void {
  metrics.count('holdfast_requests_total', {
    method: name.slice(name.lastIndexOf('/') + 1),
    reason: fault?.reason ?? 'ok',
  })
}

function workloadSides(
  options: DoorsOptions,
  core: Core,
  load: () => Promise<Outgoing>,
  { headerTimeout, calls, turns }: OutgoingLimits,
) {
  const { config, audit, clock, metrics, admit } = options
  const { book, revocations, rotator, signing, svids, vault, jwt, wit } = core
  const proofs = {
    signing,
    vault,
    revocations,
    audit,
    watch: (changed: () => void) => rotator.watch(changed),
  }
  const releases = async () => (await load()).releases
  const intake = async () => (await load()).intake
  const onCall = (name: string, fault: Fault | undefined) => countCall(metrics, name, fault)
  const envoy = openEnvoySide(options, core, releases)
  const grpc = openGrpc(
    {
      SpiffeWorkloadAPI: workloadApi({
        svids,
        bundles: core.bundles,
        rotator,
        book,
        revocations,
        audit,
        clock,
        wit,
        jwt,
      }),
      'holdfast.v1.ProofService': {
        ...proofApi(proofs),
        ...releaseHandlers(releases),
        ...subjectHandlers(intake),
      },
      ...envoy.services,
    },
    {
      clock,
      admit,
      onCall,
      withoutHeader: new Set(Object.keys(envoy.services)),
      streamsPerConnection: config.limits.streamsPerConnection,
      calls,
      turns,
    },
  )
  const own = jsonApi({ ...proofs, book, trustDomain: config.trustDomain, contacts: config.owners })
  const facts = async () => (await load()).facts
  const routes = {
    ...own,
    ...releaseRoutes(releases),
    ...targetRoutes(facts),
    ...subjectRoutes(intake),
  }
  const http = openHttp({ routes, admit, onCall, securityHeader: true, headerTimeout, calls, turns })
  return { drainEnvoy: envoy.drain, grpc, http }
}

function adminSides(options: DoorsOptions, core: Core, { headerTimeout, calls, turns }: OutgoingLimits) {
  const { admin, audit, config, log } = options
  const { approvals, attestation, book, revoking } = core
  const routes = adminApi({
    ...admin,
    approvals,
    audit,
    log,
    attestation,
    book,
    revoke: revoking,
    contacts: config.owners,
  })
  const both = { admit: () => {}, onCall: () => {} }
  return {
    http: openHttp({ ...both, routes, securityHeader: false, headerTimeout, turns }),
    grpc: openGrpc({}, { ...both, clock: options.clock, streamsPerConnection: 1, calls, turns }),
  }
}

function countConnection({ metrics }: DoorsOptions, fault: Fault | undefined): void {
  metrics.count('holdfast_connections_total', { reason: fault?.reason ?? 'ok' })
}
