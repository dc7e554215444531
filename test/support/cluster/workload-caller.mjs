// A client of the Workload API in a pod. Usage: node workload-caller.mjs SOCKET EVERY_MS | stream. One FetchX509SVID on a
// connection of its own, again and again; with `stream` it stays on one, and asks anew at once when that ends. It writes one
// line `200 SPIFFE_ID` an answer, or `0 ERROR` when a call ends without one, to the file $OUT.
import { appendFileSync } from 'node:fs'
import { credentials, loadPackageDefinition, Metadata } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const [, , socket, how] = process.argv
const isStream = how === 'stream'
const definition = loadPackageDefinition(loadSync('/app/proto/workload.proto'))
const metadata = new Metadata()
metadata.set('workload.spiffe.io', 'true')
// Whoever ends it has to mean it.
process.on('SIGTERM', () => {})

const tell = (line) => appendFileSync(process.env.OUT, `${line.replaceAll('\n', ' ')}\n`)

function ask() {
  const client = new definition.SpiffeWorkloadAPI(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  })
  let isTold = false
  let isOver = false
  const end = (line) => {
    if (isOver) return
    isOver = true
    if (!isTold) tell(line)
    client.close()
    setTimeout(ask, isStream ? 0 : Number(how))
  }
  const stream = client.FetchX509SVID({}, metadata, isStream ? {} : { deadline: Date.now() + 10_000 })
  stream.on('data', ({ svids }) => {
    tell(`200 ${svids[0].spiffeId}`)
    isTold = true
    if (!isStream) stream.cancel()
  })
  stream.on('end', () => end('0 ended without an answer'))
  stream.on('error', ({ message }) => end(`0 ${message}`))
}

ask()
