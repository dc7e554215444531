/** One process of a crowd: opens its connections at once, holds them and counts their messages. */
import type { Told } from './crowd.ts'
import { openFetch } from './fetch-x509.ts'

const [, , socket = '', argument] = process.argv
const size = Number(argument)

let messages = 0
let lost = 0
const tell = () => process.send?.({ messages, lost } satisfies Told)
/** Tells when all streams may have the same number of messages: one report a change, not one a stream. */
const onMessage = () => {
  messages += 1
  if (messages % size === 0) tell()
}
const onEnd = () => {
  lost += 1
  tell()
}
for (let opened = 0; opened < size; opened++) openFetch({ socket, onMessage, onEnd })
process.once('disconnect', () => process.exit())
