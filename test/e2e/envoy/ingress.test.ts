/**
 * Requests checked by the agent before an Envoy lets them in: the one table of requests through a real Envoy, what the
 * application gets of them, and what a revocation does to a connection that is open already.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { call } from '../../support/call.ts'
import { hasEnvoy } from '../../support/envoy.ts'
import { type EnvoyIngress, startEnvoyIngress } from '../../support/envoy-ingress.ts'
import { VERIFY_CASES } from '../../support/verify-cases.ts'
import { openVerifyRig, type VerifyRig } from '../../support/verify-rig.ts'

/** Envoy itself makes another request of it. */
const NORMALISED = new Set(['a dot segment'])

describe.skipIf(!hasEnvoy).each([true, false])(
  'requests that come in through Envoy, raw headers %s',
  (isRaw) => {
    let rig: VerifyRig
    let ingress: EnvoyIngress
    beforeAll(async () => {
      rig = await openVerifyRig()
      ingress = await startEnvoyIngress(rig, isRaw)
    }, 300_000)
    afterAll(async () => {
      await ingress?.[Symbol.asyncDispose]()
      await rig?.[Symbol.asyncDispose]()
    })

    const cases = VERIFY_CASES.filter(({ name, needsPeer }) => !needsPeer && !NORMALISED.has(name))
    it.each(cases.map((each) => [each.name, each] as const))('are answered: %s', async (_name, each) => {
      const requests = each.requests(rig)
      for (const request of requests.slice(0, -1)) expect((await ingress.ask(request)).isAllowed).toBe(true)
      const last = requests.at(-1)
      if (!last) throw new Error('a case without a request')
      const before = ingress.arrived.length
      const heard = await ingress.ask(last)
      const { reason = 'ok', allowed } = rig.verdicts().at(-1) ?? {}
      expect({ status: heard.status, reason, allowed }).toEqual({
        status: each.status,
        reason: each.reason,
        allowed: each.reason === 'ok',
      })
      expect(ingress.arrived.length - before).toBe(each.reason === 'ok' ? 1 : 0)
      expect(/error="([a-z_]+)"/.exec(heard.headers['www-authenticate'] ?? '')?.[1]).toBe(each.error)
      expect(heard.headers['dpop-nonce'] !== undefined).toBe(each.error === 'use_dpop_nonce')
    })

    it('are checked with the path that the application gets', async () => {
      const { status } = await ingress.ask(rig.request({ path: '/v1/x/%2e%2e/items' }))
      expect(status).toBe(200)
      const escaped = await ingress.ask(rig.request({ path: '/v1/x%2Fitems' }))
      expect(escaped.status).toBe(400)
    })

    it('take the nonce that was asked for', async () => {
      const { headers } = await ingress.ask(rig.request({ route: 'strict' }))
      const nonce = headers['dpop-nonce']
      expect((await ingress.ask(rig.request({ route: 'strict', proof: { nonce } }))).status).toBe(200)
    })

    it('reach the application without credentials, and with no name but the one that was verified', async () => {
      const forged = [
        'X-Holdfast-Caller',
        'X-Holdfast-Handle',
        'x_holdfast_caller',
        'X-Forwarded-Client-Cert',
      ]
      const headers = forged.map((name) => [name, 'URI=spiffe://dev.holdfast.test/forged'] as const)
      const { status } = await ingress.ask(rig.request({ headers }))
      expect(status).toBe(200)
      const arrived = ingress.arrived.at(-1) ?? []
      expect(arrived).not.toContain('authorization')
      expect(arrived).not.toContain('dpop')
      expect(arrived.join(' ')).not.toContain('forged')
      expect(arrived[arrived.indexOf('x-holdfast-caller') + 1]).toBe('client:login/web')
    })

    it('are refused on a connection that was open before the revocation', async () => {
      using kept = await ingress.connect()
      expect((await kept.ask(rig.request())).status).toBe(200)
      const revoked = await call(rig.agent.adminSocket, 'POST', '/v1/revoke', { body: { jkt: rig.key.jkt } })
      expect(revoked.status).toBe(200)
      const { status } = await kept.ask(rig.request())
      expect([status, rig.verdicts().at(-1)?.reason]).toEqual([401, 'token_revoked'])
    })
  },
)
