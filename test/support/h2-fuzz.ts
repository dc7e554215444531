/** Connections of HTTP/2 frames in any order: from a seed, so that a failure repeats. */
import type { Socket } from 'node:net'
import { FLAG, FRAME, frame, PREFACE, raw } from './h2.ts'

/** A number from 0 to `below`, not included. */
export type Draw = (below: number) => number

/** The same numbers for the same seed (mulberry32). */
export function drawsOf(seed: number): Draw {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const RST_STREAM = 3
const PUSH_PROMISE = 5
const PING = 6
const GOAWAY = 7
const WINDOW_UPDATE = 8
const FRAMES = 40
const STREAMS = 8
const SETTINGS_IDS = 8

/** A field without indexing (RFC 7541 s.6.2.2). */
export function literal(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0), raw(name), raw(value)])
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

function pick<T>(draw: Draw, from: readonly T[]): T {
  return from[draw(from.length)] as T
}

/** One frame, honest more often than not; `heads` are whole header blocks. */
function anyFrame(draw: Draw, heads: readonly Buffer[]): Buffer {
  const stream = draw(12) === 0 ? draw(2 * STREAMS) : 1 + 2 * draw(STREAMS)
  const end = draw(2) === 0 ? FLAG.endStream : 0
  const kinds: readonly (() => Buffer)[] = [
    () => frame(FRAME.headers, FLAG.endHeaders | end, stream, pick(draw, heads)),
    () => frame(FRAME.headers, FLAG.endHeaders | end, stream, pick(draw, heads)),
    () => splitHead(draw, stream, end, pick(draw, heads)),
    () => frame(FRAME.headers, draw(256), stream, pick(draw, heads)),
    () => frame(FRAME.data, end, stream, Buffer.alloc(draw(9) === 0 ? 16_384 : draw(64), 1)),
    () => frame(FRAME.data, end | FLAG.padded, stream, Buffer.alloc(1 + draw(64), draw(40))),
    () => frame(2, 0, stream, Buffer.concat([word(draw(16)), Buffer.of(draw(256))])),
    () => frame(RST_STREAM, 0, stream, word(draw(16))),
    () => frame(RST_STREAM, 0, stream, word(draw(16))),
    () => frame(WINDOW_UPDATE, 0, draw(3) === 0 ? 0 : stream, word(pick(draw, [0, 1, 70_000, 0x7fff_ffff]))),
    () => frame(FRAME.settings, draw(8) === 0 ? 1 : 0, 0, setting(draw)),
    () => frame(PING, draw(2), 0, Buffer.alloc(8)),
    () => frame(FRAME.continuation, draw(8), stream, pick(draw, heads)),
    () => frame(draw(20) === 0 ? GOAWAY : PING, 0, 0, Buffer.alloc(8)),
    () => frame(draw(20) === 0 ? PUSH_PROMISE : PING, 0, draw(2), Buffer.alloc(8)),
    () => frame(draw(256), draw(256), stream, Buffer.alloc(draw(20), draw(256))),
  ]
  return pick(draw, kinds)()
}

function splitHead(draw: Draw, stream: number, end: number, block: Buffer): Buffer {
  const at = draw(block.length)
  return Buffer.concat([
    frame(FRAME.headers, end, stream, block.subarray(0, at)),
    frame(FRAME.continuation, FLAG.endHeaders, stream, block.subarray(at)),
  ])
}

function setting(draw: Draw): Buffer {
  const bytes = Buffer.alloc(6)
  bytes.writeUInt16BE(1 + draw(SETTINGS_IDS))
  bytes.writeUInt32BE(pick(draw, [0, 1, 100, 16_384, 65_535, 0x7fff_ffff, 0xffff_ffff]), 2)
  return bytes
}

/**
 * A connection's bytes in the pieces that they are written in: SETTINGS, then frames, opened in order so that many live,
 * and in one of four the last of them cut short.
 */
function anyConnection(
  draw: Draw,
  heads: readonly Buffer[],
  options: { readonly preface: boolean },
): readonly Buffer[] {
  const first = frame(FRAME.settings, 0, 0, draw(2) === 0 ? Buffer.alloc(0) : setting(draw))
  const opened = Array.from({ length: 1 + draw(STREAMS) }, (_, at) =>
    frame(FRAME.headers, FLAG.endHeaders | draw(2), 1 + 2 * at, pick(draw, heads)),
  )
  const frames = [...opened, ...Array.from({ length: draw(FRAMES) }, () => anyFrame(draw, heads))]
  const bytes = Buffer.concat([...(options.preface ? [PREFACE] : []), first, ...frames])
  return pieces(draw, draw(4) === 0 ? bytes.subarray(0, bytes.length - draw(20)) : bytes)
}

/** Writes a connection's pieces, then leaves in one of three ways. */
export async function writeAll(
  socket: Socket,
  draw: Draw,
  blocks: readonly Buffer[],
  preface: boolean,
): Promise<void> {
  for (const piece of anyConnection(draw, blocks, { preface })) {
    if (socket.destroyed) return
    socket.write(piece)
    if (draw(3) === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  const leave = draw(3)
  if (leave === 0) socket.destroy()
  else if (leave === 1) socket.end(() => setTimeout(() => socket.destroy(), 20))
  else setTimeout(() => socket.destroy(), draw(20))
}

function pieces(draw: Draw, bytes: Buffer): readonly Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const size = draw(3) === 0 ? 1 + draw(40) : 1 + draw(4_096)
    found.push(bytes.subarray(at, at + size))
    at += size
  }
  return found
}
