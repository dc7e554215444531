/** Requests that leave a pod by its Istio sidecar with token and proof, which the agent adds at each try (deploy/istio/sign.yaml). */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { dirname } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAgent } from '../../support/agent.ts'
import { ID, type SigningRig, startSigningRig } from '../../support/envoy-signing.ts'
import { idOf, TRUST_DOMAIN } from '../../support/identities.ts'
import { istioSample, type Mesh, missingForMesh, openMesh, TARGET_PORT } from '../../support/istio-mesh.ts'
import { until } from '../../support/until.ts'

const missing = missingForMesh()
if (missing) {
  console.warn(`SKIPPED: a mesh needs ${missing}`)
  it.skip('requests are signed in a mesh of Istio', () => {})
} else describe('requests that leave by a sidecar', suite)

function suite(): void {
  let rig: SigningRig
  let mesh: Mesh
  let relay: Server

  beforeAll(async () => {
    rig = await startSigningRig()
    await rig.agent.setPolicy(sidecars(rig.policy('headers')))
    const directory = dirname(rig.agent.socket)
    mesh = await openMesh({ directory, trustDomain: TRUST_DOMAIN, mesh: { trustDomain: TRUST_DOMAIN } })
    relay = createServer((near) => {
      const far = connect({ host: '127.0.0.1', port: rig.orders.port })
      for (const each of [near, far]) each.on('error', () => each.destroy())
      near.pipe(far).pipe(near)
    }).listen(0, mesh.outside)
    await once(relay, 'listening')
    const endpoint = `{ address: ${mesh.outside}, ports: { http: ${(relay.address() as AddressInfo).port} } }`
    const objects = istioSample('sign.yaml', {
      'resolution: DNS': `resolution: STATIC\n  endpoints: [${endpoint}]`,
      'number: 80': `number: ${TARGET_PORT}`,
      'targetPort: 443': `targetPort: ${TARGET_PORT}`,
      'orders.example.org:80': `orders.example.org:${TARGET_PORT}`,
      'sni: orders.example.org, subjectAltNames: [orders.example.org]': `sni: localhost, subjectAltNames: [localhost], caCertificates: ${rig.caFile}`,
    })
    mesh.setObjects(objects)
    await until(
      'requests to be signed',
      async () => {
        const heard = await mesh.askTarget({ path: '/v1/items' }).catch(() => undefined)
        return heard?.status === 200
      },
      30_000,
    )
  }, 180_000)
  afterAll(async () => {
    relay?.close()
    await mesh?.[Symbol.asyncDispose]()
    await rig?.[Symbol.asyncDispose]()
  })

  it('have the token of their target and a proof, of which the application sees nothing', async () => {
    const { headers, status } = await mesh.askTarget({
      path: '/v1/items',
      headers: [
        ['Authorization', 'Bearer of-the-application'],
        ['DPoP', 'of-the-application'],
      ],
    })
    expect(status).toBe(200)
    const sent = rig.orders.requests.at(-1)?.headers ?? {}
    expect(sent.authorization).toMatch(/^DPoP ey/)
    expect(String(sent['dpop']).split('.')).toHaveLength(3)
    expect(JSON.stringify(headers)).not.toMatch(/dpop|eyJ/i)
  })

  it('leave by a sidecar that has the runtime value of the README', () => {
    const { entries } = JSON.parse(mesh.admin('web', '/runtime'))
    expect(entries['envoy.reloadable_features.ext_proc_graceful_grpc_close'].final_value).toBe('true')
  })

  it('answer a nonce challenge in the sidecar', async () => {
    rig.orders.nonce = 'n-1'
    const before = rig.orders.refused.length
    expect((await mesh.askTarget({ path: '/v1/items' })).status).toBe(200)
    expect(rig.orders.refused.length).toBe(before + 1)
    expect((await mesh.askTarget({ path: '/v1/items' })).status).toBe(200)
    expect(rig.orders.refused.length).toBe(before + 1)
    rig.orders.nonce = undefined
  })

  it('do not leave where policy grants nothing', async () => {
    const before = rig.orders.requests.length
    expect((await mesh.askTarget({ path: '/admin' })).status).toBe(403)
    expect((await mesh.askTarget({ method: 'DELETE', path: '/v1/items' })).status).toBe(403)
    expect((await mesh.askTarget({ path: '/v1/x%2f..%2fadmin' })).status).toBe(400)
    expect(rig.orders.requests.length).toBe(before)
  })

  it('do not leave unsigned while the agent is away, and leave again with the next one', async () => {
    const before = rig.orders.requests.length
    await rig.agent.daemon.stop(0)
    expect((await mesh.askTarget({ path: '/v1/items' })).status).toBe(503)
    expect(rig.orders.requests.length).toBe(before)
    await using _next = await startAgent({ dir: rig.agent.dir, policy: sidecars(rig.policy('headers')) })
    expect((await mesh.askTarget({ path: '/v1/items' })).status).toBe(200)
  })
}

/** The sidecars are the callers: they have certificates by SDS, and the grant. */
function sidecars(files: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const own = Object.entries(files).map(([name, text]) => [
    name,
    text.replaceAll(ID, idOf('ns/shop/sa/cart')).replace('deliver: { x509: false', 'deliver: { x509: true'),
  ])
  return Object.fromEntries(own)
}
