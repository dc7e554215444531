/** What an operator writes for the chart: values, policy, and the Secret that the policy names. */
import { readFileSync } from 'node:fs'
import type { Json } from '../../support/cluster/api.ts'
import { NAMESPACE } from '../../support/manifests.ts'
import { AUDIENCE, type ProbedService, type ProbeRig } from '../../support/probed-service.ts'

const SECRETS = '/etc/holdfast/secrets/upstream'
const ROOTS = '/etc/probe'
export const CART = 'spiffe://cluster.test/ns/shop/sa/cart'
export const CALLER = 'spiffe://cluster.test/ns/shop/sa/caller'
const PROBE = `spiffe://cluster.test/ns/${NAMESPACE}/sa/holdfast-probe`

/** Roots for the agent and for the probe, and the client's key for the agent. */
export function secretsOf({ ca, clientKeyFile }: ProbeRig): readonly Json[] {
  const own = { apiVersion: 'v1', metadata: { namespace: NAMESPACE } }
  const stringData = { 'ca.pem': ca.pem, 'client.pem': readFileSync(clientKeyFile, 'utf8') }
  return [
    { ...own, kind: 'Secret', metadata: { ...own.metadata, name: 'upstream' }, stringData },
    { ...own, kind: 'ConfigMap', metadata: { ...own.metadata, name: 'roots' }, data: { 'ca.pem': ca.pem } },
  ]
}

export function valuesFor(rig: ProbeRig, service: ProbedService): Json {
  const hostAliases = [{ ip: rig.at.address, hostnames: [rig.at.name] }]
  return {
    trustDomain: 'cluster.test',
    config: { authority: { nodes: 'one' } },
    secrets: ['upstream'],
    hostAliases,
    policy: policyFor(rig, service),
    probe: probeOf(rig, service),
  }
}

/** The probe of `service`, by a schedule that is far from now. */
export function probeOf(rig: ProbeRig, service: ProbedService, minute = 0): Json {
  return {
    enabled: true,
    schedule: `${minute} * * * *`,
    url: `${service.origin}/v1/items`,
    args: ['--target', 'orders', '--quick', '--rate', '50', '--ca', `${ROOTS}/ca.pem`],
    hostAliases: [{ ip: rig.at.address, hostnames: [rig.at.name] }],
    extraVolumes: [{ name: 'roots', configMap: { name: 'roots' } }],
    extraVolumeMounts: [{ name: 'roots', mountPath: ROOTS, readOnly: true }],
  }
}

/** Who is whom, and what of `service` they may ask for. */
export function policyFor({ issuer }: ProbeRig, { origin }: ProbedService): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${SECRETS}/ca.pem } }`
  const client = `{ id: web, auth: private_key_jwt, key: { file: ${SECRETS}/client.pem } }`
  return {
    'identity.yaml': `layer: identity
servers:
  - { name: login, issuer: '${issuer.issuer}', client: ${client} }
entries:
  - name: cart
    spiffe_id: ${CART}
    selectors: [k8s:ns:shop, k8s:sa:cart, k8s:container-name:holdfast]
    deliver: { x509: true, jwt: false, wit: false }
  - name: caller
    spiffe_id: ${CALLER}
    selectors: [k8s:ns:shop, k8s:sa:caller]
    deliver: { x509: true, jwt: false, wit: false }
  - name: probe
    spiffe_id: ${PROBE}
    selectors: [k8s:ns:${NAMESPACE}, k8s:sa:holdfast-probe]
    deliver: { x509: false, jwt: false, wit: false }
    probe: true
targets:
  - { name: orders, server: login, resource: '${AUDIENCE}', scopes: [read], custody: nothing, max_ttl: 5m }
`,
    'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['${origin}'], ${trust} }
servers:
  - { issuer: '${issuer.issuer}', ${trust} }
`,
    'application.yaml': `layer: application
targets:
  - name: orders
    grants:
      - { callers: [${CART}], methods: [GET], paths: [/v1/**] }
      - { callers: [${PROBE}], methods: [GET], paths: [/v1/**], probe: true }
`,
    'security.yaml': 'layer: security\n',
  }
}
