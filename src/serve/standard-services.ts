/**
 * Reflection (grpc.reflection v1 and v1alpha) and health (grpc.health.v1). Their packages bring gRPC a second time:
 * 150 ms of start and 12 MB, so they are loaded by the first call that wants one.
 */
import { createRequire } from 'node:module'
import type { MethodDefinition, ServiceDefinition } from '@grpc/proto-loader'
import { packageFile } from '../base/package.ts'

type AnyMethod = MethodDefinition<object, object>
type Implementation = Readonly<Record<string, unknown>>
type Handle = (...call: readonly unknown[]) => void

/** A service as a gRPC server takes it. */
export interface StandardService {
  readonly definition: ServiceDefinition
  readonly implementation: Readonly<Record<string, Handle>>
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
const UNARY = { requestStream: false, responseStream: false }
const SERVER_STREAM = { requestStream: false, responseStream: true }
const TWO_WAY = { requestStream: true, responseStream: true }
const SERVICES: Readonly<Record<string, Readonly<Record<string, typeof UNARY>>>> = {
  'grpc.health.v1.Health': { Check: UNARY, List: UNARY, Watch: SERVER_STREAM },
  'grpc.reflection.v1.ServerReflection': { ServerReflectionInfo: TWO_WAY },
  'grpc.reflection.v1alpha.ServerReflection': { ServerReflectionInfo: TWO_WAY },
}

/** `names` are the services that reflection lists and whose health is SERVING. */
export function standardServices(names: readonly string[]): readonly StandardService[] {
  let loaded: ReadonlyMap<string, Loaded> | undefined
  const real = (path: string): Loaded => {
    loaded ??= load(names)
    const found = loaded.get(path)
    if (!found) throw new Error(`the packages lack ${path}`)
    return found
  }
  return Object.entries(SERVICES).map(([service, methods]) => {
    const paths = Object.entries(methods).map(([name, kind]) => ({ name, kind, path: `/${service}/${name}` }))
    return {
      definition: Object.fromEntries(
        paths.map(({ name, kind, path }) => [name, lateMethod({ ...kind, path }, real)]),
      ),
      implementation: Object.fromEntries(
        paths.map(({ name, path }): [string, Handle] => [name, (...call) => real(path).handle(...call)]),
      ),
    }
  })
}

/** A method whose codecs are looked up when bytes come. */
function lateMethod(
  { path, ...kind }: typeof UNARY & { readonly path: string },
  real: (path: string) => Loaded,
): AnyMethod {
  return {
    path,
    ...kind,
    requestSerialize: (value) => real(path).method.requestSerialize(value),
    requestDeserialize: (bytes) => real(path).method.requestDeserialize(bytes),
    responseSerialize: (value) => real(path).method.responseSerialize(value),
    responseDeserialize: (bytes) => real(path).method.responseDeserialize(bytes),
  } as AnyMethod
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
