/** A plain grpc-js client of the agent: what an application without the SDK would write. */
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import { loadSync, type ServiceDefinition } from '@grpc/proto-loader'

export type Message = Readonly<Record<string, unknown>>

/** One connection. */
export interface Unary {
  call(method: string, request: Message): Promise<Message>
  close(): void
}

const definitions = loadSync(['workload.proto', 'holdfast.proto'], { keepCase: true, includeDirs: ['proto'] })

/** Connects to `socket` on first use; methods are named `service/method`. */
export function openUnary(socket: string): Unary {
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
    'grpc.use_local_subchannel_pool': 1,
  })
  const metadata = new Metadata()
  metadata.set('workload.spiffe.io', 'true')
  return {
    call: (name, request) => {
      const [service = '', method = ''] = name.split('/')
      const definition = (definitions[service] as ServiceDefinition)[method]
      if (!definition) throw new Error(`there is no method ${name}`)
      const { path, requestSerialize, responseDeserialize } = definition
      return new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          metadata,
          (error, answer) => {
            if (error) reject(error)
            else resolve((answer ?? {}) as Message)
          },
        )
      })
    },
    close: () => client.close(),
  }
}
