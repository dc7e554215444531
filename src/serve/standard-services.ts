/**
 * Reflection (grpc.reflection v1 and v1alpha) and health (grpc.health.v1). Their packages bring gRPC a second time:
 * 150 ms of start and 12 MB, so they are loaded by the first call that wants one.
 */
import { EventEmitter } from 'node:events'
import { createRequire } from 'node:module'
import type { MethodDefinition } from '@grpc/proto-loader'
import { packageFile } from '../base/package.ts'
import type { Answer } from './answers.ts'
import type { Call, CallReader } from './call.ts'
import { percentEncoded } from './fault-status.ts'

type AnyMethod = MethodDefinition<object, object>
type Implementation = Readonly<Record<string, unknown>>
type Handle = (...call: readonly unknown[]) => void

/** A method and what answers it. */
export interface StandardMethod {
  readonly path: string
  readonly answer: Answer
}

/** A method as its package has it. */
interface Loaded {
  readonly method: AnyMethod
  readonly handle: Handle
}

/** All that this package speaks, in `proto/`. */
export const PROTO_FILES = [
  'workload.proto',
  'holdfast.proto',
  'status.proto',
  'ext_authz.proto',
  'ext_proc.proto',
  'sds.proto',
]
const METHODS = [
  '/grpc.health.v1.Health/Check',
  '/grpc.health.v1.Health/List',
  '/grpc.health.v1.Health/Watch',
  '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
  '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
]

/** `names` are the services that reflection lists and whose health is SERVING. */
export function standardServices(names: readonly string[]): readonly StandardMethod[] {
  let loaded: ReadonlyMap<string, Loaded> | undefined
  const real = (path: string): Loaded => {
    loaded ??= load(names)
    const found = loaded.get(path)
    if (!found) throw new Error(`the packages lack ${path}`)
    return found
  }
  return METHODS.map((path) => ({ path, answer: (call) => answerWith(real(path), call) }))
}

/** What the packages say of a call that failed. */
interface Failure {
  readonly code: number
  readonly details: string
}

/** The call as handlers for grpc-js take it, as far as these two use it. */
function answerWith({ method, handle }: Loaded, call: Call): CallReader {
  const write = (message: object) => {
    // The handlers do not look whether the caller takes their answers.
    if (!call.write(method.responseSerialize(message))) call.pause()
  }
  const given = Object.assign(new EventEmitter(), { request: {}, write, end: () => call.finish() })
  call.onClose(() => given.emit('cancelled'))
  if (method.requestStream) {
    handle(given)
    return {
      message: (bytes) => given.emit('data', method.requestDeserialize(bytes)),
      end: () => given.emit('end'),
      drained: () => call.resume(),
    }
  }
  const answer = (failure: Failure | null, message: object) => {
    if (failure)
      return call.fail([
        ['grpc-status', String(failure.code)],
        ['grpc-message', percentEncoded(failure.details)],
      ])
    write(message)
    call.finish()
  }
  return {
    message: (bytes) => {
      given.request = method.requestDeserialize(bytes)
    },
    end: () => handle(given, answer),
  }
}

function load(names: readonly string[]): ReadonlyMap<string, Loaded> {
  const require = createRequire(import.meta.url)
  const { loadSync } = require('@grpc/proto-loader') as typeof import('@grpc/proto-loader')
  const { ReflectionService } = require('@grpc/reflection') as typeof import('@grpc/reflection')
  const { HealthImplementation } = require('grpc-health-check') as typeof import('grpc-health-check')
  const methods = new Map<string, Loaded>()
  const collector = {
    addService: (service: object, implementation: object) => {
      for (const [name, method] of Object.entries(service as Record<string, AnyMethod>))
        methods.set(method.path, {
          method,
          handle: handlerOf(implementation as Implementation, name, method),
        })
    },
  }
  // The package puts a dot before the name of a service that has no package.
  const services = names.map((name) => (name.includes('.') ? name : `.${name}`))
  const includeDirs = [packageFile('proto')]
  const definitions = loadSync(PROTO_FILES, { keepCase: true, includeDirs })
  const reflection = new ReflectionService(definitions, { services })
  for (const implementation of Object.values(reflection)) dropDots(implementation)
  reflection.addToServer(collector)
  const statuses = Object.fromEntries(['', ...names].map((name) => [name, 'SERVING' as const]))
  new HealthImplementation(statuses).addToServer(collector)
  return methods
}

function handlerOf(implementation: Implementation, name: string, { originalName }: AnyMethod): Handle {
  return (implementation[name] ?? implementation[originalName ?? '']) as Handle
}

/** Clients ask for `SpiffeWorkloadAPI`, not for `.SpiffeWorkloadAPI`: both of its indexes are put right. */
function dropDots(implementation: unknown): void {
  const { services, symbols } = implementation as Record<'services' | 'symbols', Record<string, unknown>>
  for (const index of [services, symbols]) {
    for (const name of Object.keys(index).filter((key) => key.startsWith('.'))) {
      index[name.slice(1)] = index[name]
      delete index[name]
    }
  }
}
