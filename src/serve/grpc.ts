/**
 * gRPC on connections that somebody else accepted and attested. The caller of a call is that of its connection, never
 * what the client says.
 */
import type { Duplex } from 'node:stream'
import type { Owner } from '../attest/owner.ts'
import type { Clock } from '../base/clock.ts'
import { Counts } from '../base/counts.ts'
import { Fault } from '../base/fault.ts'
import { Session } from '../http2/session.ts'
import { Answers } from './answers.ts'
import type { Caller } from './caller.ts'
import type { Dialog, Hear } from './dialog.ts'
import type { Feed } from './feed.ts'
import type { OwnerLimits } from './limits.ts'
import type { Message } from './messages.ts'
import { standardServices } from './standard-services.ts'
import type { Turns } from './turns.ts'

/** The sending half of a server stream whose messages are full states: a slow reader gets only the newest. */
export interface Stream {
  send(message: Message): void
  end(fault: Fault): void
  /** Calls `then` once the stream has ended, whoever ended it. */
  onClose(then: () => void): void
}

/** Answers one request; `gone` gives a signal that aborts when the caller gives the call up. */
export type Unary = (caller: Caller, request: Message, gone: () => AbortSignal) => Message | Promise<Message>

/**
 * How one RPC is answered. `exchange` answers each message of a two-way stream with one message, in order; `dialog` opens
 * one that answers when it can, and returns what hears the caller; in `feed` the agent speaks unasked too.
 */
export type Handler =
  | { readonly unary: Unary }
  | { readonly stream: (caller: Caller, request: Message, stream: Stream) => void }
  | { readonly exchange: (caller: Caller, request: Message) => Message | Promise<Message> }
  | { readonly dialog: (caller: Caller, dialog: Dialog) => Hear }
  | { readonly feed: (caller: Caller, feed: Feed) => (request: Message) => void }

export type Handlers = Readonly<Record<string, Handler>>

export interface GrpcOptions {
  readonly clock: Clock
  /** Throws not_ready or draining. */
  readonly admit: () => void
  /** Hears of each call that began, and of the reason when it failed. */
  readonly onCall: (method: string, fault: Fault | undefined) => void
  readonly streamsPerConnection: number
  /** Services whose clients send no `workload.spiffe.io`, by full name. */
  readonly withoutHeader?: ReadonlySet<string>
  /** Open calls by uid; one too many is refused before its request is read. */
  readonly calls: OwnerLimits
  /** When connections are heard, and messages that want an answer. */
  readonly turns: Turns
}

/** The gRPC side of a socket. */
export interface GrpcSide {
  /** Serves `caller` on `connection`, which must not have been read from. */
  inject(connection: Duplex, caller: Caller): void
  /** Adds reflection and health. */
  addStandardServices(): void
  /** Sends GOAWAY, then ends what is still open after `grace` ms. */
  drain(grace: number): void
  stop(): void
}

/** Messages that are not whole, or not read yet, in octets: of one owner over all its connections, and of all. */
const HELD_PER_OWNER = 16 * 1024 * 1024
const HELD_LIMIT = 64 * 1024 * 1024

/** Serves `services` (full service name to handlers). */
export function openGrpc(services: Readonly<Record<string, Handlers>>, options: GrpcOptions): GrpcSide {
  const sessions = new Set<Session>()
  const answers = new Answers(options)
  const held = new Counts<Owner>()
  let allHeld = 0
  const hold = (owner: Owner, octets: number) => {
    allHeld += octets
    held.add(owner, octets)
    return held.of(owner) <= HELD_PER_OWNER && allHeld <= HELD_LIMIT
  }
  for (const [name, handlers] of Object.entries(services)) answers.add(name, handlers)
  return {
    inject: (connection, caller) => {
      const session = new Session(connection, {
        clock: options.clock,
        turn: options.turns.of(caller.owner),
        streams: options.streamsPerConnection,
        open: (stream, head) => answers.open(caller, stream, head),
        hold: (octets) => hold(caller.owner, octets),
        onBug: (caught) => options.onCall('connection', Fault.from(caught)),
      })
      sessions.add(session)
      connection.once('close', () => sessions.delete(session))
    },
    addStandardServices: () => {
      for (const { path, answer } of standardServices(Object.keys(services))) answers.set(path, answer)
    },
    drain: (grace) => {
      for (const session of sessions) session.leave()
      options.clock.after(grace, () => end(sessions))
    },
    stop: () => end(sessions),
  }
}

function end(sessions: Iterable<Session>): void {
  for (const session of sessions) session.destroy()
}
