import { describe, expect, it } from 'vitest'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { startPeer } from '../support/peer.ts'
import { until } from '../support/until.ts'

const DPOP = { method: 'GET', url: 'https://api.example.test/v1/items' }
const isRoot = process.getuid?.() === 0
const keys = (agent: TestAgent) => agent.daemon.status().keys

/** Policy of one uid whose keys hang on what `instance` says. */
const policy = (uid: number, instance = 'process', targets = 'example') => ({
  'identity.yaml': `layer: identity
entries:
  - name: caller
    spiffe_id: spiffe://dev.holdfast.test/caller
    selectors: ['unix:uid:${uid}']
    deliver: { x509: false, jwt: true, wit: false }
    instance: ${instance}
targets:
  - { name: ${targets}, server: none, custody: headers, max_ttl: 5m, tokenless: true, hash_only: true, binding: [dpop] }
`,
  'platform.yaml': `layer: platform\ntargets:\n  - { name: ${targets}, origins: ['https://api.example.test'] }\n`,
  'application.yaml': `layer: application
targets:
  - name: ${targets}
    grants: [{ callers: [spiffe://dev.holdfast.test/caller], methods: [GET], paths: [/**] }]
`,
})

describe('the lease', () => {
  it('ends with the process: its key is gone within a second, and another process never had it', async () => {
    await using agent = await startAgent()
    const first = await startPeer(agent.socket)
    await using second = await startPeer(agent.socket)
    const { body: signed } = await first.call('POST', '/v1/dpop', DPOP)
    const { status, body } = await second.call('POST', '/v1/dpop', { ...DPOP, jkt: signed.jkt })
    expect([status, body.error.reason]).toEqual([403, 'key_lost'])
    expect(keys(agent)).toBe(1)
    await first.end()
    await until('the key to go', () => keys(agent) === 0, 1_000)
  })

  it('keeps the key of a process over its connections', async () => {
    await using agent = await startAgent()
    const one = await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })
    const two = await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })
    expect(two.body.jkt).toBe(one.body.jkt)
    expect(two.body.jti).not.toBe(one.body.jti)
  })

  it('shares a key between processes only where the entry says that the identity is the instance', async () => {
    await using agent = await startAgent({ policy: policy(process.getuid?.() ?? 0, 'identity') })
    await using first = await startPeer(agent.socket)
    await using second = await startPeer(agent.socket)
    const one = await first.call('POST', '/v1/dpop', DPOP)
    const two = await second.call('POST', '/v1/dpop', DPOP)
    expect(two.body.jkt).toBe(one.body.jkt)
  })

  it('ends with the entry: keys go at once and the next call is refused', async () => {
    const own = process.getuid?.() ?? 0
    await using agent = await startAgent({ policy: policy(own) })
    await using peer = await startPeer(agent.socket)
    expect((await peer.call('POST', '/v1/dpop', DPOP)).status).toBe(200)
    await agent.setPolicy(policy(own + 1))
    expect(keys(agent)).toBe(0)
    const { status, body } = await peer.call('POST', '/v1/dpop', DPOP)
    expect([status, body.error.reason]).toEqual([403, 'no_identity'])
  })

  it('destroys the keys of a target that policy withdraws', async () => {
    const own = process.getuid?.() ?? 0
    await using agent = await startAgent({ policy: policy(own) })
    expect((await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })).status).toBe(200)
    await agent.setPolicy(policy(own, 'process', 'other'))
    expect(keys(agent)).toBe(0)
  })

  it('keeps the last good policy when the new one is not valid, and says so', async () => {
    await using agent = await startAgent({ policy: policy(process.getuid?.() ?? 0) })
    await expect(agent.setPolicy({ 'identity.yaml': 'layer: identity\nentrys: []\n' })).rejects.toThrow(
      /entrys/,
    )
    expect(agent.daemon.status().degraded.map(({ code }) => code)).toContain('reload_failed')
    expect((await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })).status).toBe(200)
  })
})

describe('revocation by an operator', () => {
  const revoke = (agent: TestAgent, body: object) => call(agent.adminSocket, 'POST', '/v1/revoke', { body })

  it('of a SPIFFE ID destroys its keys, refuses later calls, and says what lives elsewhere', async () => {
    await using agent = await startAgent({ policy: policy(process.getuid?.() ?? 0) })
    expect((await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })).status).toBe(200)
    const { status, body } = await revoke(agent, { spiffe_id: 'spiffe://dev.holdfast.test/caller' })
    expect([status, keys(agent)]).toEqual([200, 0])
    expect(body.lives_elsewhere.map(({ what }: { what: string }) => what).join()).toMatch(
      /JWT-SVIDs.*access tokens/,
    )
    const refused = await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })
    expect([refused.status, refused.body.error.reason]).toEqual([403, 'revoked'])
    await call(agent.adminSocket, 'POST', '/v1/lift', {
      body: { spiffe_id: 'spiffe://dev.holdfast.test/caller' },
    })
    expect((await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })).status).toBe(200)
  })

  it('of a thumbprint ends that key alone', async () => {
    await using agent = await startAgent()
    const { body: old } = await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })
    await revoke(agent, { jkt: old.jkt })
    const { body: fresh } = await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })
    expect(fresh.jkt).not.toBe(old.jkt)
    const named = await call(agent.socket, 'POST', '/v1/dpop', { body: { ...DPOP, jkt: old.jkt } })
    expect(named.body.error.reason).toBe('revoked')
  })

  it('of a pid ends that process, on the open connection and on new ones, and no other', async () => {
    await using agent = await startAgent()
    await using one = await startPeer(agent.socket)
    await using other = await startPeer(agent.socket)
    await one.call('POST', '/v1/dpop', DPOP)
    await revoke(agent, { pid: one.pid })
    const { status, body } = await one.call('POST', '/v1/dpop', DPOP)
    expect([status, body.error.reason]).toEqual([403, 'revoked'])
    expect((await other.call('POST', '/v1/dpop', DPOP)).status).toBe(200)
  })

  it('of a target refuses it for everybody', async () => {
    await using agent = await startAgent()
    await revoke(agent, { target: 'example' })
    const { body } = await call(agent.socket, 'POST', '/v1/dpop', { body: DPOP })
    expect(body.error.reason).toBe('revoked')
  })

  it('outlives the agent: the next one refuses before it answers anything else', async () => {
    await using first = await startAgent()
    await revoke(first, { target: 'example' })
    await first.daemon.stop(0)
    await using second = await startAgent({ dir: first.dir })
    expect((await call(second.socket, 'POST', '/v1/dpop', { body: DPOP })).body.error.reason).toBe('revoked')
  })

  it.each([
    {},
    { jkt: 'a', target: 'b' },
    { pid: 'x' },
    { pid: 0 },
    { spiffe_id: 'web' },
    { jkt: 'a', seconds: -1 },
  ])('refuses %j as a request', async (body) => {
    await using agent = await startAgent()
    expect((await revoke(agent, body)).status).toBe(400)
    expect(agent.daemon.status().revocations).toEqual([])
  })

  it.skipIf(!isRoot)('is closed to other users, by mode and by uid', async () => {
    await using agent = await startAgent()
    await using stranger = await startPeer(agent.adminSocket, { uid: 4242, gid: 4242 })
    expect((await stranger.call('GET', '/v1/status')).status).toBe(0)
  })

  it('is on record with who did it', async () => {
    await using agent = await startAgent()
    await revoke(agent, { target: 'example' })
    expect(agent.records).toContainEqual(
      expect.objectContaining({ event: 'revoke', allowed: true, pid: process.pid, detail: 'target=example' }),
    )
  })
})
