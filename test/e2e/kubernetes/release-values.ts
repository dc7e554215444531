/** What an operator writes for the chart: values, policy, and the Secret that the policy names. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { ROOT } from '../../support/built-agent.ts'
import { makeAuthority, validity } from '../../support/certificates.ts'
import type { Json } from '../../support/cluster/api.ts'
import { NAMESPACE } from '../../support/manifests.ts'
import { pem } from '../../support/openssl.ts'
import { AUDIENCE, type ProbedService, type ProbeRig } from '../../support/probed-service.ts'

const SECRETS = '/etc/holdfast/secrets/upstream'
const ROOTS = '/etc/probe'
export const CART = 'spiffe://cluster.test/ns/shop/sa/cart'
export const CALLER = 'spiffe://cluster.test/ns/shop/sa/caller'

const own = { apiVersion: 'v1', metadata: { namespace: NAMESPACE } }
const secretOf = (name: string, stringData: Readonly<Record<string, string>>): Json => ({
  ...own,
  kind: 'Secret',
  metadata: { ...own.metadata, name },
  stringData,
})

/** Roots for the agent and for the probe, the client's key for the agent, and what all agents sign with. */
export function secretsOf({ ca, clientKeyFile }: ProbeRig): readonly Json[] {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keys = [{ ...privateKey.export({ format: 'jwk' }), kid: 'shared-1', use: 'jwt-svid' }]
  return [
    secretOf('upstream', { 'ca.pem': ca.pem, 'client.pem': readFileSync(clientKeyFile, 'utf8') }),
    secretOf('holdfast-jwt-keys', { 'jwks.json': JSON.stringify({ keys }) }),
    caSecret('one'),
    { ...own, kind: 'ConfigMap', metadata: { ...own.metadata, name: 'roots' }, data: { 'ca.pem': ca.pem } },
  ]
}

const now = Math.floor(Date.now() / 1000)
const span = validity(now - 60, now + 7200)
const root = makeAuthority({ commonName: 'root', validity: span })

/** As cert-manager writes it, and again at each renewal: an intermediate of this name. */
export function caSecret(commonName: string): Json {
  const ca = makeAuthority({ signedBy: root, commonName, pathLength: 0, validity: span })
  const key = String(ca.pair.privateKey.export({ format: 'pem', type: 'pkcs8' }))
  return secretOf('holdfast-ca', { 'tls.crt': pem(ca.der), 'tls.key': key, 'ca.crt': pem(root.der) })
}

export function valuesFor(rig: ProbeRig, service: ProbedService): Json {
  const hostAliases = [{ ip: rig.at.address, hostnames: [rig.at.name] }]
  return {
    trustDomain: 'cluster.test',
    authority: { caSecret: 'holdfast-ca', jwtKeysSecret: 'holdfast-jwt-keys' },
    secrets: ['upstream'],
    hostAliases,
    policy: policyFor(rig, service),
    probe: probeOf(rig, service),
  }
}

/** The probe of `service`; by itself it never runs while a test does. */
export function probeOf(rig: ProbeRig, service: ProbedService, schedule = '0 0 29 2 *'): Json {
  return {
    enabled: true,
    schedule,
    url: `${service.origin}/v1/items`,
    args: ['--target', 'orders-probe', '--quick', '--rate', '50', '--ca', `${ROOTS}/ca.pem`],
    hostAliases: [{ ip: rig.at.address, hostnames: [rig.at.name] }],
    extraVolumes: [{ name: 'roots', configMap: { name: 'roots' } }],
    extraVolumeMounts: [{ name: 'roots', mountPath: ROOTS, readOnly: true }],
  }
}

/** As the example has it, for another trust domain and another service. */
function probePolicy({ origin }: ProbedService): Readonly<Record<string, string>> {
  const text = readFileSync(join(ROOT, 'deploy/examples/kubernetes/probe.yaml'), 'utf8')
    .replaceAll('spiffe://example.org', 'spiffe://cluster.test')
    .replace('resource: "https://orders.example.org"', `resource: "${AUDIENCE}"`)
    .replace('origins: ["https://orders.example.org"]', `origins: ["${origin}"]`)
  return parse(text).policy
}

/** Who is whom, and what of `service` they may ask for. */
export function policyFor({ issuer }: ProbeRig, service: ProbedService): Readonly<Record<string, string>> {
  const { origin } = service
  const trust = `tls: { trust: { file: ${SECRETS}/ca.pem } }`
  const client = `{ id: web, auth: private_key_jwt, key: { file: ${SECRETS}/client.pem } }`
  return {
    ...probePolicy(service),
    'identity.yaml': `layer: identity
servers:
  - { name: login, issuer: '${issuer.issuer}', client: ${client} }
entries:
  - name: cart
    spiffe_id: ${CART}
    selectors: [k8s:ns:shop, k8s:sa:cart, k8s:container-name:holdfast]
    deliver: { x509: true, jwt: false, wit: false }
  - name: app
    spiffe_id: ${CART}
    selectors: [k8s:ns:shop, k8s:sa:cart, k8s:pod-name:cart]
    deliver: { x509: true, jwt: false, wit: false }
  - name: caller
    spiffe_id: ${CALLER}
    selectors: [k8s:ns:shop, k8s:sa:caller]
    deliver: { x509: true, jwt: false, wit: false }
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
`,
    'security.yaml': 'layer: security\n',
  }
}
