// A client of the Workload API in a pod: one FetchX509SVID on a connection of its own, again and again. Usage: node
// workload-caller.mjs SOCKET EVERY_MS. It writes one line `200 SPIFFE_ID` an answer, or `0 ERROR`, to the file $OUT.
import { appendFileSync } from 'node:fs'
import { credentials, loadPackageDefinition, Metadata } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const [, , socket, every] = process.argv
const definition = loadPackageDefinition(loadSync('/app/proto/workload.proto'))
const metadata = new Metadata()
metadata.set('workload.spiffe.io', 'true')
process.on('SIGTERM', () => {})

const tell = (line) => appendFileSync(process.env.OUT, `${line.replaceAll('\n', ' ')}\n`)

function ask() {
  const client = new definition.SpiffeWorkloadAPI(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  })
  let isTold = false
  const end = (line) => {
    if (!isTold) tell(line)
    isTold = true
    client.close()
    setTimeout(ask, Number(every))
  }
  const stream = client.FetchX509SVID({}, metadata, { deadline: Date.now() + 10_000 })
  stream.on('data', ({ svids }) => {
    stream.removeAllListeners('end')
    tell(`200 ${svids[0].spiffeId}`)
    isTold = true
    stream.cancel()
  })
  stream.on('end', () => end('0 ended without an answer'))
  stream.on('error', ({ message }) => end(`0 ${message}`))
}

ask()
