/** Custom resources of tests, as the API server hands them out. */
const VERSION = 'holdfast.dev/v1alpha1'
let count = 0

type Json = Record<string, unknown>

function make(kind: string, name: string, spec: Json, metadata: Json = {}): Json {
  count += 1
  const created = new Date(1_700_000_000_000 + count * 1000).toISOString()
  const common = { name, uid: `uid-${count}`, generation: 1, creationTimestamp: created }
  return { apiVersion: VERSION, kind, metadata: { ...common, ...metadata }, spec }
}

export const PATHS = {
  ids: `/apis/${VERSION}/clusterspiffeids`,
  entries: `/apis/${VERSION}/clusterstaticentries`,
  policies: `/apis/${VERSION}/clusterpolicies`,
  grants: `/apis/${VERSION}/grants`,
  namespaces: '/api/v1/namespaces',
} as const

export const DEFAULT_TEMPLATE =
  'spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}'

export const clusterSpiffeId = (name: string, spec: Json = {}, metadata: Json = {}) =>
  make('ClusterSPIFFEID', name, { spiffeIDTemplate: DEFAULT_TEMPLATE, ...spec }, metadata)
export const clusterStaticEntry = (name: string, spec: Json) => make('ClusterStaticEntry', name, spec)
export const clusterPolicy = (name: string, spec: Json, metadata: Json = {}) =>
  make('ClusterPolicy', name, spec, metadata)
export const grant = (namespace: string, name: string, spec: Json) => make('Grant', name, spec, { namespace })
export const namespace = (name: string, labels: Record<string, string> = {}): Json => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name, labels },
})
