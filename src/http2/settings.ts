/** SETTINGS (RFC 9113 s.6.5): the agent's own, and what it needs of a client's. */
import { CODE, ConnectionError, FLAG, FRAME_LIMIT, type Frame, frame, SETTING, TYPE } from './frame.ts'
import { LIST_LIMIT } from './hpack.ts'
import { WINDOW_LIMIT } from './stream.ts'

const LARGEST_FRAME = 2 ** 24 - 1
const NOTHING = Buffer.alloc(0)

/** The frame in which the agent says that a client may have so many `streams`. */
export function settingsOf(streams: number): Frame {
  const pairs = [
    [SETTING.streams, streams],
    [SETTING.listSize, LIST_LIMIT],
  ] as const
  const payload = Buffer.alloc(pairs.length * 6)
  for (const [at, [name, value]] of pairs.entries()) {
    payload.writeUInt16BE(name, at * 6)
    payload.writeUInt32BE(value, at * 6 + 2)
  }
  return frame(TYPE.settings, 0, 0, payload)
}

/** Says that a client's settings hold from now on. */
export function settingsTaken(): Frame {
  return frame(TYPE.settings, FLAG.ack, 0, NOTHING)
}

/**
 * What a client takes of a stream before it says more, where its settings say it. Answers are no larger than any client
 * takes; of its other settings none is of use here. Throws ConnectionError for what no setting may be.
 */
export function windowIn(payload: Buffer): number | undefined {
  let window: number | undefined
  for (let at = 0; at < payload.length; at += 6) {
    const [name, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)]
    checkSetting(name, value)
    if (name === SETTING.window) window = value
  }
  return window
}

/** s.6.5.2. */
function checkSetting(name: number, value: number): void {
  if (name === SETTING.push && value > 1) throw new ConnectionError(CODE.protocol)
  if (name === SETTING.frame && (value < FRAME_LIMIT || value > LARGEST_FRAME))
    throw new ConnectionError(CODE.protocol)
  if (name === SETTING.window && value > WINDOW_LIMIT) throw new ConnectionError(CODE.flowControl)
}
