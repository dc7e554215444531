/** Plain requests to an API server: what `kubectl` sends, without it. */
import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import type { KeyFiles } from './pki.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests read members of objects they asserted on.
export type Json = any

export interface ApiAnswer {
  readonly status: number
  readonly body: Json
}

export interface Api {
  call(method: string, path: string, body?: unknown, type?: string): Promise<ApiAnswer>
  /** The answer's body; throws when the API server refuses. */
  ask(method: string, path: string, body?: unknown, type?: string): Promise<Json>
  /** Server-side apply of one object of any kind that `pathOf` knows. */
  apply(object: Json): Promise<ApiAnswer>
  /** The same server, by another's bearer token. */
  as(token: string): Api
}

/** What a kind is called in paths; kinds that the rig applies. */
const PLURALS: Readonly<Record<string, string>> = {
  NetworkPolicy: 'networkpolicies',
  ValidatingAdmissionPolicy: 'validatingadmissionpolicies',
  PriorityClass: 'priorityclasses',
}
const CLUSTER_WIDE: ReadonlySet<string> = new Set([
  'Namespace',
  'Node',
  'ClusterRole',
  'ClusterRoleBinding',
  'CustomResourceDefinition',
  'ValidatingAdmissionPolicy',
  'ValidatingAdmissionPolicyBinding',
  'PriorityClass',
  'CSIDriver',
])

/** Where an object lives; a kind of ours is found by the last word of its definition. */
export function pathOf(object: Json): string {
  const { apiVersion, kind, metadata } = object
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`
  const plural = PLURALS[kind] ?? `${kind.toLowerCase()}s`
  const isWide = CLUSTER_WIDE.has(kind) || kind.startsWith('Cluster')
  const space = isWide ? '' : `/namespaces/${metadata.namespace ?? 'default'}`
  return `${root}${space}/${plural}/${metadata.name}`
}

/** Talks to `url`, which a certificate of `ca` speaks for, by a client certificate or by a bearer token. */
export function openApi(url: string, ca: string, as: KeyFiles | string): Api {
  const identity =
    typeof as === 'string' ? {} : { cert: readFileSync(as.cert, 'utf8'), key: readFileSync(as.key, 'utf8') }
  const agent = new Agent({ ca, ...identity, keepAlive: false })
  const authorization = typeof as === 'string' ? { authorization: `Bearer ${as}` } : {}
  const call: Api['call'] = (method, path, body, type = 'application/json') => {
    const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
    const length =
      text === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(text) }
    return new Promise((resolve, reject) => {
      const headers = { accept: 'application/json', ...authorization, ...length }
      const outgoing = request(
        new URL(path, url),
        { method, headers, agent, timeout: 20_000 },
        (response) => {
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => chunks.push(chunk))
          response.on('error', reject)
          response.on('end', () =>
            resolve({
              status: response.statusCode ?? 0,
              body: parsed(Buffer.concat(chunks).toString('utf8')),
            }),
          )
        },
      )
      outgoing.on('timeout', () => outgoing.destroy(new Error(`${method} ${path} took too long`)))
      outgoing.on('error', reject)
      outgoing.end(text)
    })
  }
  const ask: Api['ask'] = async (method, path, body, type) => {
    const answer = await call(method, path, body, type)
    if (answer.status < 300) return answer.body
    throw new Error(
      `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body?.message ?? answer.body)}`,
    )
  }
  return {
    call,
    ask,
    apply: (object) => {
      const path = `${pathOf(object)}?fieldManager=test&force=true&fieldValidation=Strict`
      return call('PATCH', path, object, 'application/apply-patch+yaml')
    },
    as: (token) => openApi(url, ca, token),
  }
}

function parsed(text: string): Json {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
