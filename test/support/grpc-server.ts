/** A gRPC server as others run it, over TLS, that checks the token and the DPoP proof of each call. */
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import { checkProof, type Proved } from './resource-server.ts'
import type { TestCa } from './tls.ts'

const same = (bytes: Buffer) => bytes
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/shop.Orders/${name}`,
  requestStream,
  responseStream,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
})

/** Messages are bytes: what is tested is how calls travel. */
export const ORDERS = {
  Get: method('Get', false, false),
  List: method('List', false, true),
  Talk: method('Talk', true, true),
  Fail: method('Fail', false, false),
  Wait: method('Wait', false, true),
  Never: method('Never', false, false),
}

export interface GrpcServer extends AsyncDisposable {
  readonly port: number
  /** Why calls were refused. */
  readonly refused: readonly string[]
  /** Metadata of the calls, in order. */
  readonly metadata: readonly Metadata[]
  /** Calls that their caller ended. */
  readonly cancelled: number
}

type Call =
  | ServerUnaryCall<Buffer, Buffer>
  | ServerWritableStream<Buffer, Buffer>
  | ServerDuplexStream<Buffer, Buffer>

export async function startGrpcServer(ca: TestCa): Promise<GrpcServer> {
  const [refused, metadata, seen] = [[] as string[], [] as Metadata[], new Set<string>()]
  let [port, cancelled] = [0, 0]
  const proved = async (call: Call): Promise<Proved> => {
    metadata.push(call.metadata)
    ;(call as NodeJS.EventEmitter).on('cancelled', () => {
      cancelled += 1
    })
    const texts = (name: string) => call.metadata.get(name).map(String)
    const place = `https://localhost:${port}${call.getPath()}`
    const shown = { authorization: texts('authorization'), proofs: texts('dpop'), method: 'POST', place }
    return await checkProof({ ...shown, nonce: undefined }, seen).catch((error: Error) => {
      refused.push(error.message)
      throw Object.assign(error, { code: status.UNAUTHENTICATED, details: error.message })
    })
  }
  const unary =
    (answer: (proved: Proved, call: ServerUnaryCall<Buffer, Buffer>) => Buffer) =>
    async (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => {
      try {
        done(null, answer(await proved(call), call), trailerOf())
      } catch (error) {
        done(error as Error)
      }
    }
  const server = new Server()
  server.addService(ORDERS, {
    Get: unary(({ sub }, { request }) => Buffer.from(`${sub} ${request.toString()}`)),
    List: async (call: ServerWritableStream<Buffer, Buffer>) => {
      await proved(call)
      for (let at = 0; at < 5; at += 1) call.write(Buffer.from(`item ${at}`))
      call.end(trailerOf())
    },
    Talk: async (call: ServerDuplexStream<Buffer, Buffer>) => {
      call.on('data', (message: Buffer) => call.write(Buffer.from(`echo ${message.toString()}`)))
      call.on('end', () => call.end())
      await proved(call)
    },
    Fail: unary(() => {
      throw Object.assign(new Error(), { code: status.NOT_FOUND, details: 'no order 17: “zero”' })
    }),
    Wait: async (call: ServerWritableStream<Buffer, Buffer>) => {
      await proved(call)
      call.write(Buffer.from('first'))
    },
    Never: async (call: ServerUnaryCall<Buffer, Buffer>) => void (await proved(call)),
  })
  const { cert, key } = ca.serverFiles()
  const credentials = ServerCredentials.createSsl(null, [
    { cert_chain: Buffer.from(cert), private_key: Buffer.from(key) },
  ])
  port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
  )
  return {
    get port() {
      return port
    },
    refused,
    metadata,
    get cancelled() {
      return cancelled
    },
    [Symbol.asyncDispose]: async () => server.forceShutdown(),
  }
}

function trailerOf(): Metadata {
  const trailer = new Metadata()
  trailer.set('x-trailer', 'kept')
  return trailer
}
