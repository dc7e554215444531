/** The agent in a pod of its own: its account and rights, its configuration, and a pod from the template of a DaemonSet. */
import type { Json } from './api.ts'
import { type Cluster, makeNamespace } from './cluster.ts'
import { IMAGE } from './images.ts'
import { NODE_NAME } from './kubelet.ts'
import { startPod } from './pods.ts'

export const SYSTEM = 'holdfast-system'
export const ACCOUNT = 'holdfast-agent'

export interface AgentFiles {
  readonly config: string
  readonly policy: Readonly<Record<string, string>>
  readonly secrets: Readonly<Record<string, string>>
}

/** Makes everything that the agent's pod mounts and may do. */
export async function prepareAgent(cluster: Cluster, files: AgentFiles): Promise<void> {
  await makeNamespace(cluster, SYSTEM, [ACCOUNT], { 'pod-security.kubernetes.io/enforce': 'privileged' })
  const apply = async (object: Json) => {
    const { status, body } = await cluster.api.apply(object)
    if (status >= 300) throw new Error(`${object.kind} ${object.metadata.name}: ${JSON.stringify(body)}`)
  }
  for (const object of rights()) await apply(object)
  const own = { apiVersion: 'v1', metadata: { namespace: SYSTEM } }
  const map = (name: string, data: object) => ({
    ...own,
    kind: 'ConfigMap',
    metadata: { ...own.metadata, name },
    data,
  })
  await apply(map('holdfast-agent', { 'holdfast.yaml': files.config }))
  await apply(map('holdfast-policy', files.policy))
  const metadata = { ...own.metadata, name: 'holdfast-secrets' }
  await apply({ ...own, kind: 'Secret', metadata, stringData: files.secrets })
}

function rights(): readonly Json[] {
  const apiVersion = 'rbac.authorization.k8s.io/v1'
  const metadata = { name: ACCOUNT }
  const rules = [{ apiGroups: [''], resources: ['nodes/pods'], verbs: ['get'] }]
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: ACCOUNT }
  const subjects = [{ kind: 'ServiceAccount', name: ACCOUNT, namespace: SYSTEM }]
  return [
    { apiVersion, kind: 'ClusterRole', metadata, rules },
    { apiVersion, kind: 'ClusterRoleBinding', metadata, roleRef, subjects },
  ]
}

export interface AgentPodOptions {
  /** Lines of /etc/hosts. */
  readonly hosts?: Json
  /** Changes to the pod's specification. */
  readonly spec?: Json
}

/** The pod of the agent. */
export function agentPod(name: string, options: AgentPodOptions = {}): Json {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace: SYSTEM, name, labels: { 'app.kubernetes.io/name': 'holdfast' } },
    spec: { ...SPEC, nodeName: NODE_NAME, hostAliases: options.hosts ?? [], ...options.spec },
  }
}

const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } })

const SPEC = {
  serviceAccountName: ACCOUNT,
  hostPID: true,
  priorityClassName: 'system-node-critical',
  terminationGracePeriodSeconds: 15,
  containers: [
    {
      name: 'agent',
      image: IMAGE,
      imagePullPolicy: 'Never',
      command: [
        '/bin/node',
        '--secure-heap=1048576',
        '--secure-heap-min=2',
        '--max-semi-space-size=4',
        '/app/dist/holdfast.js',
      ],
      args: ['run', '--config', '/etc/holdfast/holdfast.yaml', '--takeover'],
      env: [
        field('NODE_IP', 'status.hostIP'),
        field('POD_IP', 'status.podIP'),
        field('POD_NAMESPACE', 'metadata.namespace'),
        field('POD_UID', 'metadata.uid'),
      ],
      readinessProbe: { httpGet: { path: '/readyz', port: 9465 }, periodSeconds: 1 },
      // A busy machine gives nearly nothing to a pod that asks for nothing.
      resources: { requests: { cpu: '250m', memory: '128Mi' } },
      securityContext: {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      },
      volumeMounts: [
        { name: 'run', mountPath: '/run/holdfast' },
        { name: 'config', mountPath: '/etc/holdfast', readOnly: true },
        { name: 'policy', mountPath: '/etc/holdfast-policy', readOnly: true },
        { name: 'secrets', mountPath: '/etc/holdfast-secrets', readOnly: true },
        { name: 'tmp', mountPath: '/tmp' },
      ],
    },
  ],
  volumes: [
    { name: 'run', hostPath: { path: '/run/holdfast', type: 'DirectoryOrCreate' } },
    { name: 'config', configMap: { name: 'holdfast-agent' } },
    { name: 'policy', configMap: { name: 'holdfast-policy' } },
    { name: 'secrets', secret: { secretName: 'holdfast-secrets', defaultMode: 0o400 } },
    { name: 'tmp', emptyDir: { medium: 'Memory' } },
  ],
}

/** Starts it and waits until it runs. */
export const startAgentPod = (cluster: Cluster, name: string, options: AgentPodOptions = {}): Promise<Json> =>
  startPod(cluster, agentPod(name, options))
