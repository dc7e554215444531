/** Two sidecars that a real istiod configures, with identities of the agent; each request checked by it (deploy/istio). */
import { dirname } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { idOf, TRUST_DOMAIN } from '../../support/identities.ts'
import { istioSample, type Mesh, missingForMesh, openMesh } from '../../support/istio-mesh.ts'
import { until } from '../../support/until.ts'
import { openVerifyRig, type VerifyRig } from '../../support/verify-rig.ts'

const CART = 'ns/shop/sa/cart'
const missing = missingForMesh()
if (missing) {
  console.warn(`SKIPPED: a mesh needs ${missing}`)
  it.skip('a mesh of Istio is run', () => {})
} else describe('a mesh of Istio', suite)

function suite(): void {
  let rig: VerifyRig
  let mesh: Mesh

  beforeAll(async () => {
    rig = await openVerifyRig({
      config: (config) => ({ ...config, sds: { ...config.sds, rootca: 'all' } }),
    })
    await rig.agent.setPolicy(withCart(rig.policy))
    const directory = dirname(rig.agent.socket)
    const trust = { trustDomain: TRUST_DOMAIN, trustDomainAliases: ['partner.test'] }
    mesh = await openMesh({ directory, trustDomain: TRUST_DOMAIN, mesh: trust })
  }, 180_000)
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]()
    await rig?.[Symbol.asyncDispose]()
  })

  const lastOf = (name: string) => {
    const lines = mesh.arrived.at(-1) ?? []
    return lines[lines.indexOf(name) + 1]
  }

  it('connects sidecars by mutual TLS, with the SPIFFE IDs that Istio writes policies in', async () => {
    expect((await mesh.ask()).status).toBe(200)
    expect(lastOf('x-forwarded-client-cert')).toContain(`By=${idOf(CART)}`)
    expect(lastOf('x-forwarded-client-cert')).toContain(`URI=${idOf(CART)}`)
    for (const name of ['cart', 'web'] as const) {
      const secrets = JSON.parse(mesh.admin(name, '/config_dump?resource=dynamic_active_secrets')).configs
      expect(secrets.map((one: { name: string }) => one.name).sort()).toEqual(['ROOTCA', 'default'])
    }
  })

  it('lets nobody in without a certificate', () => {
    expect(() => mesh.curl('http://127.0.0.2:18080/')).toThrow('reset by peer')
    expect(() => mesh.curl('--insecure', 'https://127.0.0.2:18080/')).toThrow('curl: (')
  })

  it('wants callers of its trust domain and of those that istiod was told of', () => {
    const listeners = mesh.admin('cart', '/config_dump?resource=dynamic_listeners')
    const prefixes = new Set(listeners.match(/"prefix": "spiffe:[^"]*"/g))
    expect([...prefixes].sort()).toEqual(
      [TRUST_DOMAIN, 'partner.test'].map((domain) => `"prefix": "spiffe://${domain}/"`),
    )
  })

  it('knows callers in policies of Istio by those SPIFFE IDs', async () => {
    const becomes = (status: number) =>
      until(`a ${status}`, async () => (await mesh.ask()).status === status, 20_000)
    mesh.setObjects([allow(`${TRUST_DOMAIN}/ns/shop/sa/other`)])
    await becomes(403)
    mesh.setObjects([allow(`${TRUST_DOMAIN}/${CART}`)])
    await becomes(200)
  })

  describe('with verify.yaml', () => {
    beforeAll(async () => {
      mesh.setObjects(
        istioSample('verify.yaml', { 'app: orders': 'app: cart', 'route: orders': 'route: api' }),
      )
      const isChecked = async () => (await mesh.ask({ path: '/v1/items' })).status === 401
      await until('requests to be checked', isChecked, 20_000)
    }, 30_000)

    it('lets a right request in, without credentials and with no name but the verified one', async () => {
      const forged = [
        ['X-Holdfast-Caller', 'forged'],
        ['X_Holdfast_Caller', 'forged'],
      ] as const
      expect((await mesh.ask(rig.request({ headers: forged }))).status).toBe(200)
      const lines = mesh.arrived.at(-1) ?? []
      expect([lines.includes('authorization'), lines.includes('dpop')]).toEqual([false, false])
      // The sidecar of the caller, by the certificate of the connection.
      expect(lastOf('x-holdfast-caller')).toBe(idOf(CART))
      expect(lines).not.toContain('forged')
    })

    it.each([
      ['a proof of another key', { proof: { ath: 'x'.repeat(43) } }, 401],
      ['no token', { without: ['Authorization', 'DPoP'] }, 401],
      ['a method that nobody granted', { method: 'DELETE' }, 403],
      ['a path that reads two ways', { path: '/v1/items%2f..%2fadmin' }, 400],
    ] as const)('refuses %s', async (_what, over, status) => {
      const before = mesh.arrived.length
      expect((await mesh.ask(rig.request(over))).status).toBe(status)
      expect(mesh.arrived.length).toBe(before)
    })

    it('takes no proof twice', async () => {
      const received = rig.request()
      expect((await mesh.ask(received)).status).toBe(200)
      expect((await mesh.ask(received)).status).toBe(401)
    })

    it('takes tokens that are bound to the certificate of the calling sidecar, and to no other', async () => {
      expect((await mesh.ask(rig.request())).status).toBe(200)
      const [, hash = ''] = /Hash=([0-9a-f]{64})/.exec(lastOf('x-forwarded-client-cert') ?? '') ?? []
      const bound = (to: Buffer) => {
        const cnf = { 'x5t#S256': to.toString('base64url') }
        return mesh.ask(rig.request({ scheme: 'Bearer', without: ['DPoP'], claims: { cnf } }))
      }
      expect((await bound(Buffer.from(hash, 'hex'))).status).toBe(200)
      expect((await bound(Buffer.alloc(32, 1))).status).toBe(401)
    })

    it('knows a hop by the address of its connection, whatever X-Forwarded-For says', async () => {
      const places = { 'app: orders': 'app: cart', 'route: orders': 'route: gated' }
      mesh.setObjects(istioSample('verify.yaml', places))
      const forged = rig.request({ headers: [['X-Forwarded-For', '192.0.2.7']] })
      await until('the other route', async () => {
        const { status } = await mesh.ask(rig.request())
        return status === 403
      })
      expect((await mesh.ask(forged)).status).toBe(403)
    })
  })
}

/** The sidecars' identity is the first that is delivered, so that it is `default`. */
function withCart(files: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const selector = `unix:uid:${process.getuid?.()}`
  const entry = `  - { name: cart, spiffe_id: ${idOf(CART)}, selectors: ['${selector}'], deliver: { x509: true, jwt: false, wit: false } }\n`
  const { 'identity.yaml': text = '', ...rest } = files
  return { ...rest, 'identity.yaml': text.replace('\nentries:\n', `\nentries:\n${entry}`) }
}

const allow = (principal: string) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name: 'cart', namespace: 'shop' },
  spec: {
    selector: { matchLabels: { app: 'cart' } },
    rules: [{ from: [{ source: { principals: [principal] } }] }],
  },
})
