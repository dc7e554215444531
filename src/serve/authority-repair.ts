/**
 * The authority repair: grpc-java sends the socket's path as `:authority`, and Node's HTTP/2 refuses a `/` there before
 * grpc-js sees the call. Such connections pass through a stream that replaces each `/` by `-`; on unix sockets nobody
 * reads the authority. Clients known to send another one keep the native socket.
 */
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { Frames, PREFACE } from './frames.ts'
import { replaceSlashes } from './hpack.ts'

const FRAME_HEAD = 9
const SETTINGS = 4
const SETTING = 6
const GRPC_CORE_SETTING = 65_027
/** Settings, by their identifiers in order, of clients whose authority Node takes: grpc-go, grpc-js, tonic. */
const GOOD_SETTINGS: ReadonlySet<string> = new Set(['', '4', '2,4,5,6'])

/** An Envoy says the name of its cluster, or what its operator wrote: the same for all calls, and here with the first. */
const ENVOY_SETTINGS = '2,1,8,3,4'

/**
 * Whether a connection that begins with `firstBytes` (the preface and the client's SETTINGS frame) has to be repaired:
 * all have but those of known good clients, since nothing more comes before the server's own SETTINGS, and of Envoys
 * whose first call says an authority without `/`: through the repair each call costs a fifth more.
 */
export function needsRepair(firstBytes: Buffer): boolean {
  const identifiers = settingsIn(firstBytes)
  if (!identifiers) return true
  const settings = identifiers.join(',')
  if (settings === ENVOY_SETTINGS) return !isFirstCallGood(firstBytes)
  return !GOOD_SETTINGS.has(settings) && !identifiers.includes(GRPC_CORE_SETTING)
}

/** The identifiers of the client's SETTINGS, in order; undefined where they are not whole. */
function settingsIn(firstBytes: Buffer): readonly number[] | undefined {
  const head = PREFACE.length
  if (firstBytes.length < head + FRAME_HEAD || firstBytes.readUInt8(head + 3) !== SETTINGS) return undefined
  const start = head + FRAME_HEAD
  const end = start + firstBytes.readUIntBE(head, 3)
  if (end > firstBytes.length || (end - start) % SETTING !== 0) return undefined
  const identifiers: number[] = []
  for (let at = start; at < end; at += SETTING) identifiers.push(firstBytes.readUInt16BE(at))
  return identifiers
}

/** Whether the head of a call is there and no head needs a repair; a broken one is the repair's to refuse. */
function isFirstCallGood(firstBytes: Buffer): boolean {
  let heads = 0
  let isGood = true
  const frames = new Frames((block) => {
    heads += 1
    if (replaceSlashes(block)) isGood = false
    return false
  })
  try {
    frames.push(Buffer.from(firstBytes))
  } catch {
    return false
  }
  return isGood && heads > 0
}

/** `socket` with its client's header blocks repaired, to be used in its place; each ends with the other. */
export function repairAuthority(socket: Socket): Duplex {
  const frames = new Frames(replaceSlashes)
  const repaired = new Duplex({
    read: () => {
      socket.resume()
    },
    write: (chunk: Buffer, _encoding, done) => {
      socket.write(chunk, done)
    },
    writev: (chunks, done) => {
      const parts = chunks.map(({ chunk }) => chunk as Buffer)
      socket.write(Buffer.concat(parts), done)
    },
    final: (done) => {
      socket.end(done)
    },
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  // Whoever uses the stream may not listen: an error without a listener would end the agent.
  repaired.on('error', () => {})
  forward(socket, frames, repaired)
  return repaired
}

function forward(socket: Socket, frames: Frames, repaired: Duplex): void {
  socket.on('data', (chunk: Buffer) => {
    try {
      let hasRoom = true
      for (const piece of frames.push(chunk)) hasRoom = repaired.push(piece)
      if (!hasRoom) socket.pause()
    } catch {
      repaired.destroy()
    }
  })
  socket.on('end', () => repaired.push(null))
  socket.on('error', (error) => repaired.destroy(error))
  socket.on('close', () => repaired.destroy())
  socket.pause()
  if (socket.destroyed) repaired.destroy()
}
