/** How much of a client is heard in one turn of the event loop, so that others are heard in it too. */
import { FLAG, type Frame, TYPE } from './frame.ts'

/** One turn, of one client. */
export interface Turn {
  /** Whether more may be read in this one. */
  isOpen(): boolean
  /** Counts what was read, in frames that say little. */
  spend(frames: number): void
  /** Calls `then` in a later turn that is open. */
  later(then: () => void): void
}

/** What the head of a request costs, and its end: a frame that says little costs 1. */
const REQUEST_FRAME = 4
/** Octets that cost 1 more: messages of 53 KB that name 3,000 headers take 4 ms each. */
const OCTETS = 128

/** What a frame costs of a turn. */
export function costOf({ flags, payload, type }: Frame): number {
  const isEnd = type === TYPE.data && (flags & FLAG.endStream) !== 0
  return (type === TYPE.headers || isEnd ? REQUEST_FRAME : 1) + toDecode(payload.length)
}

/** What it costs beside that to decode so many octets. */
export function toDecode(octets: number): number {
  return Math.floor(octets / OCTETS)
}
