/** The process of the floor: FetchX509SVID, FetchJWTSVID, Check and Process with made-up answers of the agent's size. */
import { createServer } from 'node:net'
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
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

const PROOF = 'x'.repeat(430)
const SPENT = ['authorization', 'signature', 'signature-input', 'workload-identity-token', 'txn-token']
const SET = [{ header: { key: 'dpop', value: PROOF } }]
const SET_RAW = [{ header: { key: 'dpop', raw_value: Buffer.from(PROOF) } }]
const CHECKED = { status: { code: 0 }, ok_response: { headers: SET, headers_to_remove: SPENT } }
const SIGNED = {
  request_headers: { response: { header_mutation: { set_headers: SET_RAW, remove_headers: SPENT } } },
}
const HEARD = { response_headers: { response: { header_mutation: { remove_headers: ['dpop-nonce'] } } } }

const definitions = loadSync(['workload.proto', 'ext_authz.proto', 'ext_proc.proto'], {
  keepCase: true,
  includeDirs: ['proto'],
})
const server = new Server({ 'grpc.enable_channelz': 0 })
server.addService(definitions['SpiffeWorkloadAPI'] as ServiceDefinition, {
  FetchX509SVID: (call: ServerWritableStream<object, object>) => {
    call.on('error', () => {})
    call.write({ svids: [X509] })
  },
  FetchJWTSVID: (_call: object, answer: sendUnaryData<object>) => answer(null, { svids: [JWT] }),
})
server.addService(definitions['envoy.service.auth.v3.Authorization'] as ServiceDefinition, {
  Check: (_call: object, answer: sendUnaryData<object>) => answer(null, CHECKED),
})
server.addService(definitions['envoy.service.ext_proc.v3.ExternalProcessor'] as ServiceDefinition, {
  Process: (call: ServerDuplexStream<object, object>) => {
    call.on('error', () => {})
    const isUnheard = call.metadata.get('holdfast-answers').length > 0
    call.on('data', (message: object) => {
      call.write('request_headers' in message ? SIGNED : HEARD)
      if (isUnheard) call.end()
    })
    call.on('end', () => call.end())
  },
})
const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
const listener = createServer((socket) => {
  socket.on('error', () => {})
  injector.injectConnection(socket)
})
listener.listen({ path, backlog: BACKLOG }, () => process.send?.('ready'))
process.once('disconnect', () => process.exit())
