/**
 * The messages on the wire: services and codecs out of `descriptor.json`, which `npm run descriptor` writes from the
 * .proto files. To parse those instead takes an eighth of a start's CPU and 3.5 MB.
 */
import protobuf from 'protobufjs/light.js'
import descriptor from './descriptor.json' with { type: 'json' }

/** A protobuf message as the wire library gives and takes it; absent members are absent. */
export type Message = Readonly<Record<string, unknown>>

export type Encode = (message: Message) => Buffer
type Decode = (bytes: Buffer) => Message

/** A method as a gRPC server takes it. */
export interface Method {
  readonly path: string
  readonly requestStream: boolean
  readonly responseStream: boolean
  readonly requestSerialize: Encode
  readonly requestDeserialize: Decode
  readonly responseSerialize: Encode
  readonly responseDeserialize: Decode
}

/** Members keep the names of the .proto files; an int64 is a number, an enum its name. */
const FORM = { longs: Number, enums: String, defaults: false, oneofs: false }

// Its types want comments, which descriptors do without.
const root = protobuf.Root.fromJSON(descriptor as protobuf.INamespace)

/** The methods of the service of that full name. */
export function methodsOf(service: string): Readonly<Record<string, Method>> {
  const found = root.lookupService(service)
  return Object.fromEntries(
    found.methodsArray.map(({ name, requestType, responseType, requestStream, responseStream }) => {
      const [request, response] = [found.lookupType(requestType), found.lookupType(responseType)]
      const method: Method = {
        path: `/${service}/${name}`,
        requestStream: requestStream === true,
        responseStream: responseStream === true,
        requestSerialize: encoder(request),
        requestDeserialize: decoder(request),
        responseSerialize: encoder(response),
        responseDeserialize: decoder(response),
      }
      return [name, method]
    }),
  )
}

/** The encoder of the message of that full name. */
export function encoderOf(message: string): Encode {
  return encoder(root.lookupType(message))
}

// The library writes the code of a codec when it is first used.
function encoder(type: protobuf.Type): Encode {
  return (message) => type.encode(type.fromObject(message)).finish() as Buffer
}

function decoder(type: protobuf.Type): Decode {
  return (bytes) => type.toObject(type.decode(bytes), FORM)
}
