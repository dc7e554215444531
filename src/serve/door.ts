/**
 * The way of one connection: counted by uid or pod, attested by the kernel's facts, then handed to HTTP/2 or HTTP/1.1 by its
 * first bytes. Nothing that a client sends is read before it is counted.
 */
import type { Socket } from 'node:net'
import type { AttestedWorkload } from '../attest/identify.ts'
import type { Owner } from '../attest/owner.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { hungUp, peerCredentials } from '../base/native.ts'
import type { Accept, Arrival } from './arrivals.ts'
import { attestedCaller, type Caller, refusedCaller } from './caller.ts'
import { firstBytes } from './first-bytes.ts'
import type { GrpcSide } from './grpc.ts'
import { HangUps } from './hang-ups.ts'
import type { HttpSide } from './http.ts'
import type { OwnerLimits } from './limits.ts'
import type { Turns } from './turns.ts'

/** What an attestation costs of a turn, some 200 µs: so four in a turn, and a neighbour waits for a ms at most. */
const ATTESTATION = 64

export interface DoorOptions {
  readonly limits: OwnerLimits
  /** Who answers for the connection of a process, by its pid and uid. */
  readonly ownerOf: (pid: number, uid: number) => Owner
  /** When those connections are attested that come at once. */
  readonly turns: Turns
  /** Attests the peer of a descriptor; throws the Fault that its calls will hear. */
  readonly attest: (fd: number) => AttestedWorkload
  /** The agent's own gRPC. */
  readonly grpc?: GrpcSide
  /** Any other HTTP/2; without both it is hung up on. */
  readonly http2?: Pick<HttpSide, 'inject'>
  readonly http: HttpSide
  /** Whether bodies of any length come. */
  readonly isBulk: boolean
  readonly clock: Clock
  /** How long a client may take to say what it speaks. */
  readonly firstBytesTimeout: Millis
  readonly onConnection: (fault: Fault | undefined) => void
}

/** What takes each connection that arrives. */
export function openDoor(options: DoorOptions): Accept {
  const { limits, onConnection, turns } = options
  const hangUps = new HangUps(options.clock)
  return (arrival) => {
    let leave = () => {}
    const orRefuse = (step: () => void) => {
      try {
        step()
      } catch (caught) {
        onConnection(Fault.from(caught))
        leave()
        arrival.refuse()
      }
    }
    orRefuse(() => {
      const peer = peerOf(options, arrival)
      const { fd, owner } = peer
      leave = limits.take(owner)
      const go = () => enter(options, peer, arrival.open(options.isBulk), { hangUps, leave })
      if (turns.isOpen(owner)) go()
      else
        turns.later(owner, () =>
          orRefuse(() => {
            checkHere(fd)
            go()
          }),
        )
    })
  }
}

/** Who is at the other end of a connection, as far as it is counted by that. */
interface Peer {
  readonly fd: number
  readonly pid: number
  readonly uid: number
  readonly owner: Owner
}

function peerOf({ ownerOf }: DoorOptions, { fd }: Arrival): Peer {
  checkHere(fd)
  const { pid, uid } = peerCredentials(fd)
  return { fd, pid, uid, owner: ownerOf(pid, uid) }
}

/** Who connects and leaves costs no attestation. */
function checkHere(fd: number): void {
  if (hungUp([fd]).length > 0) throw new Fault('peer_gone')
}

function enter(
  options: DoorOptions,
  { fd, owner, pid, uid }: Peer,
  socket: Socket,
  { hangUps, leave }: { readonly hangUps: HangUps; readonly leave: () => void },
): void {
  options.turns.spend(owner, ATTESTATION)
  socket.on('error', () => socket.destroy())
  socket.once('close', leave)
  hangUps.watch(socket)
  options.onConnection(undefined)
  const attested = attest(options, socket, fd)
  const caller =
    attested instanceof Fault
      ? refusedCaller(pid, uid, attested, owner)
      : attestedCaller(attested, { owner, enter: () => options.turns.enter(owner) })
  const ready = attested instanceof Fault ? undefined : attested.ready
  void route(options, socket, caller, ready).catch(() => socket.destroy())
}

function attest(options: DoorOptions, socket: Socket, fd: number): AttestedWorkload | Fault {
  try {
    const workload = options.attest(fd)
    socket.once('close', () => workload.close())
    return workload
  } catch (caught) {
    return Fault.from(caught, 'attestation_failed')
  }
}

async function route(
  options: DoorOptions,
  socket: Socket,
  caller: Caller,
  ready: Promise<void> | undefined,
): Promise<void> {
  const speaks = await firstBytes(socket, options.clock, options.firstBytesTimeout)
  // A selector that takes time (unix:sha256) is read before the first call, not during it.
  if (ready) await ready
  if (!speaks || socket.destroyed) socket.destroy()
  else if (speaks === 'http1') options.http.inject(socket, caller)
  else if (options.grpc) options.grpc.inject(socket, caller)
  else if (options.http2) options.http2.inject(socket, caller)
  else socket.destroy()
}
