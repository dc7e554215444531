// Loaded into an agent before its own code: remembers the private keys that it makes, without exporting them, so that
// a dump taken meanwhile shows what the agent alone leaves behind. SIGUSR2 writes a heap snapshot, the next one the keys.
import crypto from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import v8 from 'node:v8'

const folder = process.env.CANARY_FOLDER
const held = []
const generate = crypto.generateKeyPairSync
crypto.generateKeyPairSync = (...args) => {
  const pair = generate(...args)
  held.push(pair.privateKey)
  return pair
}
syncBuiltinESMExports()

let signals = 0
process.on('SIGUSR2', () => {
  signals += 1
  if (signals === 1) {
    v8.writeHeapSnapshot(`${folder}/heap`)
    writeFileSync(`${folder}/heap.done`, '')
  } else {
    const scalars = held.map((key) =>
      Buffer.from(key.export({ format: 'jwk' }).d, 'base64url').toString('hex'),
    )
    writeFileSync(`${folder}/keys.json`, JSON.stringify(scalars))
  }
})
