/** The API server as `holdfast check --kubernetes` asks it: from inside a pod, or through `kubectl proxy` from outside. */
import { systemClock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Members, membersOf } from '../base/members.ts'
import { ClusterHttps, type Verification } from '../cluster/https.ts'
import { ACCOUNT_DIRECTORY } from '../settings-kubernetes.ts'
import type { Io } from './io.ts'

/** Which cluster, and as whom its agents run. */
export interface ClusterWhere {
  /** What `kubectl proxy` says that it listens on; without it, the API server of this pod, or that default. */
  readonly server?: string
  readonly namespace?: string
  readonly account?: string
}

export interface ClusterApi {
  /** Whether the caller is the agent's own service account: then it asks about itself. */
  readonly isSelf: boolean
  readonly namespace: string
  readonly account: string
  /** The object at `path`; a Fault says why not, undefined that there is none (404). */
  get(path: string): Promise<Members | Fault | undefined>
  post(path: string, body: unknown): Promise<Members | Fault>
  close(): void
}

const PROXY = 'http://127.0.0.1:8001'
const NAMESPACE = 'holdfast-system'
const SERVICE_ACCOUNT = 'holdfast-agent'
const TIMEOUT = 10_000

/** Opens it; throws usage for a server that is neither https nor plain on loopback. */
export function openCluster(where: ClusterWhere, io: Io): ClusterApi {
  const { pod } = io.environment
  const isSelf = where.server === undefined && pod !== undefined
  const http = new ClusterHttps({
    ...serverOf(where, io),
    name: 'the API server',
    timeout: TIMEOUT,
    clock: systemClock,
  })
  return {
    isSelf,
    namespace: where.namespace ?? pod?.podNamespace ?? NAMESPACE,
    account: where.account ?? SERVICE_ACCOUNT,
    get: (path) => answerOf(http, path),
    post: async (path, body) =>
      (await answerOf(http, path, body)) ?? new Fault('cluster_unavailable', `no ${path}`),
    close: () => http.close(),
  }
}

interface Server {
  readonly url: string
  readonly verification: Verification
  readonly tokenFile?: string
}

function serverOf({ server }: ClusterWhere, { environment }: Io): Server {
  const { pod } = environment
  if (server === undefined && pod?.apiServer !== undefined)
    return {
      url: pod.apiServer,
      verification: { kind: 'cluster-ca', file: `${ACCOUNT_DIRECTORY}/ca.crt` },
      tokenFile: `${ACCOUNT_DIRECTORY}/token`,
    }
  const url = server ?? PROXY
  if (/^http:\/\/(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?\/?$/.test(url))
    return { url, verification: { kind: 'plain' } }
  throw new Fault('usage', `--server ${url}: wanted the address of kubectl proxy, such as ${PROXY}`)
}

async function answerOf(
  http: ClusterHttps,
  path: string,
  body?: unknown,
): Promise<Members | Fault | undefined> {
  try {
    const ask = body === undefined ? {} : ({ method: 'POST', body } as const)
    const { status, bytes } = await http.ask(path, ask)
    if (status === 404) return undefined
    if (status < 200 || status > 299) return http.refusal(status)
    const value: unknown = JSON.parse(bytes.toString('utf8'))
    return membersOf(value)
  } catch (caught) {
    return Fault.from(caught, 'cluster_unavailable')
  }
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** `metadata.name` and its like. */
export function metadataOf(object: Members): {
  readonly name: string
  readonly namespace: string
  readonly labels: Members
} {
  const { name, namespace, labels } = membersOf(object['metadata'])
  return { name: textOf(name), namespace: textOf(namespace), labels: membersOf(labels) }
}
