/** The process of the floor: FetchX509SVID and FetchJWTSVID with made-up answers. */
import { createServer } from 'node:net'
import {
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type ServiceDefinition,
  type sendUnaryData,
} from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const [, , path = ''] = process.argv
const SPIFFE_ID = 'spiffe://bench.holdfast.test/client'
const CERTIFICATE = Buffer.alloc(560)
const X509 = {
  spiffe_id: SPIFFE_ID,
  x509_svid: CERTIFICATE,
  x509_svid_key: Buffer.alloc(138),
  bundle: CERTIFICATE,
}
const JWT = { spiffe_id: SPIFFE_ID, svid: 'x'.repeat(420) }
const BACKLOG = 4_096

const definitions = loadSync('workload.proto', { keepCase: true, includeDirs: ['proto'] })
const server = new Server({ 'grpc.enable_channelz': 0 })
server.addService(definitions['SpiffeWorkloadAPI'] as ServiceDefinition, {
  FetchX509SVID: (call: ServerWritableStream<object, object>) => {
    call.on('error', () => {})
    call.write({ svids: [X509] })
  },
  FetchJWTSVID: (_call: object, answer: sendUnaryData<object>) => answer(null, { svids: [JWT] }),
})
const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
const listener = createServer((socket) => {
  socket.on('error', () => {})
  injector.injectConnection(socket)
})
listener.listen({ path, backlog: BACKLOG }, () => process.send?.('ready'))
process.once('disconnect', () => process.exit())
