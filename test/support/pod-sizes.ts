/** What a kubelet tells of a pod beside what an attestor reads: as much of it as pods of real clusters have. */
import type { FakePod } from './fake-kubelet.ts'

const REQUESTS = { cpu: '100m', memory: '256Mi' }
const WHEN = '2026-11-28T08:00:00Z'

const container = (name: string) => ({
  name,
  image: `registry.example.test/team/${name}:2026.11.28-1`,
  args: ['--config=/etc/app/config.yaml', '--listen=0.0.0.0:8080', '--log-format=json'],
  ports: [{ name: 'http', containerPort: 8080, protocol: 'TCP' }],
  env: Array.from({ length: 12 }, (_none, at) => ({
    name: `SETTING_${at}`,
    valueFrom: { configMapKeyRef: { name: `${name}-settings`, key: `setting.${at}`, optional: false } },
  })),
  resources: { requests: REQUESTS, limits: { memory: '512Mi' } },
  volumeMounts: ['config', 'cache', 'kube-api-access-x2x9z'].map((volume) => ({
    name: volume,
    readOnly: true,
    mountPath: `/var/lib/${volume}`,
  })),
  livenessProbe: probe('/livez'),
  readinessProbe: probe('/readyz'),
  terminationMessagePath: '/dev/termination-log',
  terminationMessagePolicy: 'File',
  imagePullPolicy: 'IfNotPresent',
  securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] }, runAsNonRoot: true },
})

function probe(path: string): object {
  const httpGet = { path, port: 'http', scheme: 'HTTP' }
  return { httpGet, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 }
}

/** The rest of a pod with these containers: about 11 KB with two. */
export function restOfPod(names: readonly string[]): NonNullable<FakePod['more']> {
  const spec = {
    containers: names.map(container),
    volumes: [
      { name: 'config', configMap: { name: 'config', defaultMode: 420 } },
      { name: 'cache', emptyDir: { sizeLimit: '64Mi' } },
    ],
    restartPolicy: 'Always',
    dnsPolicy: 'ClusterFirst',
    schedulerName: 'default-scheduler',
    tolerations: ['not-ready', 'unreachable'].map((key) => ({
      key: `node.kubernetes.io/${key}`,
      operator: 'Exists',
      effect: 'NoExecute',
      tolerationSeconds: 300,
    })),
  }
  const annotations = {
    'kubernetes.io/config.seen': `${WHEN.slice(0, -1)}.000000000Z`,
    'kubernetes.io/config.source': 'api',
    // What `kubectl apply` leaves: the whole specification once more.
    'kubectl.kubernetes.io/last-applied-configuration': JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      spec,
    }),
  }
  const types = ['PodReadyToStartContainers', 'Initialized', 'Ready', 'ContainersReady', 'PodScheduled']
  const conditions = types.map((type) => ({
    type,
    status: 'True',
    lastProbeTime: null,
    lastTransitionTime: WHEN,
  }))
  return {
    metadata: { annotations, creationTimestamp: WHEN, resourceVersion: '4711' },
    spec,
    status: { conditions },
  }
}
