/** The objects to copy of deploy/gateway-api, through a real Envoy Gateway where it is installed. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EnvoyGateway, hasEnvoyGateway, SAMPLE, startEnvoyGateway } from '../../support/envoy-gateway.ts'
import { until } from '../../support/until.ts'
import { openVerifyRig, type Received, type VerifyRig } from '../../support/verify-rig.ts'

/** What the command that comes with it says of these objects, by schemas and rules of its release. */
function validate(text: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'hf-egctl-'))
  const file = join(dir, 'objects.yaml')
  writeFileSync(file, text)
  const args = ['experimental', 'validate', '--file', file]
  const { stdout } = spawnSync('egctl', args, { encoding: 'utf8' })
  rmSync(dir, { recursive: true, force: true })
  return stdout
}

const hasEgctl = spawnSync('egctl', ['--help']).status === 0

if (hasEnvoyGateway && hasEgctl) describe('the objects of Envoy Gateway', suite)
else {
  console.warn('SKIPPED: envoy-gateway and egctl are not installed')
  it.skip('the objects of Envoy Gateway are driven', () => {})
}

function suite(): void {
  let rig: VerifyRig
  let gateway: EnvoyGateway

  beforeAll(async () => {
    rig = await openVerifyRig()
    gateway = await startEnvoyGateway({ socket: rig.socket })
  }, 90_000)
  afterAll(async () => {
    await gateway?.[Symbol.asyncDispose]()
    await rig?.[Symbol.asyncDispose]()
  })

  const statusOf = async (received: Received) => (await gateway.ask(received)).status

  it('are what the schemas of its release say', () => {
    const text = readFileSync(SAMPLE, 'utf8')
    expect(stripVTControlCharacters(validate(text)).trim()).toBe('OK')
    // It is not that everything is.
    expect(validate(text.replace('failOpen:', 'failsOpen:'))).toContain('unknown field')
  })

  it('let a right request in, without credentials and with no name but the verified one', async () => {
    const forged = [
      ['X-Holdfast-Caller', 'forged'],
      ['X-Holdfast-Scopes', 'forged'],
      ['X_Holdfast_Caller', 'forged'],
    ] as const
    expect(await statusOf(rig.request({ headers: forged }))).toBe(200)
    const lines = gateway.arrived.at(-1) ?? []
    expect([lines.includes('authorization'), lines.includes('dpop')]).toEqual([false, false])
    expect(lines[lines.indexOf('x-holdfast-caller') + 1]).toBe('client:login/web')
    expect(lines).not.toContain('forged')
  })

  it.each([
    ['a proof of another key', { proof: { ath: 'x'.repeat(43) } }, 401],
    ['no token', { without: ['Authorization', 'DPoP'] }, 401],
    ['a method that nobody granted', { method: 'DELETE' }, 403],
    ['two tokens', { headers: [['Authorization', 'DPoP second']] }, 400],
    ['a path that reads two ways', { path: '/v1/items%2f..%2fadmin' }, 400],
  ] as const)('refuse %s', async (_what, over, status) => {
    const before = gateway.arrived.length
    expect(await statusOf(rig.request(over))).toBe(status)
    expect(gateway.arrived.length).toBe(before)
  })

  it('say why in the words of RFC 9449', async () => {
    const { headers } = await gateway.ask(rig.request({ proof: { ath: 'x'.repeat(43) } }))
    expect(headers['www-authenticate']).toMatch(/^DPoP .*error="invalid_dpop_proof"/)
  })

  it('tell routes apart that share a path, by their names', async () => {
    const heard = await gateway.ask(rig.request({ route: 'strict' }))
    expect(heard.headers['www-authenticate']).toContain('use_dpop_nonce')
    expect(heard.headers['dpop-nonce']).toBeTruthy()
  })

  it('refuse what comes by a route that has no policy of its own', async () => {
    const before = gateway.arrived.length
    expect(await statusOf(rig.request({ path: '/other/items' }))).toBe(404)
    expect(rig.verdicts().at(-1)).toMatchObject({ reason: 'route_unknown', owner: 'platform' })
    expect(gateway.arrived.length).toBe(before)
  })

  it('check each request of a connection: a proof that was taken, and a token that is revoked meanwhile', async () => {
    const connection = new Agent({ keepAlive: true, maxSockets: 1 })
    const status = { status_list: { idx: 0, uri: rig.statusUri } }
    const token = rig.token({ claims: { status } })
    const received = rig.request({ token })
    expect((await gateway.ask(received, connection)).status).toBe(200)
    expect((await gateway.ask(received, connection)).status).toBe(401)
    rig.statuses[0] = 1
    rig.pass(60)
    await until('the revocation', async () => {
      const { status } = await gateway.ask(rig.request({ token }), connection)
      return status === 401
    })
    expect(rig.verdicts().at(-1)).toMatchObject({ reason: 'token_revoked' })
    connection.destroy()
  })

  it('let nobody in while the agent is away, and say that it is', async () => {
    const before = gateway.arrived.length
    await rig.agent.daemon.stop(0)
    expect(await statusOf(rig.request())).toBe(503)
    expect(gateway.arrived.length).toBe(before)
  })

  it('let nobody in where Envoy Gateway was not told to look at Backends', async () => {
    await gateway[Symbol.asyncDispose]()
    gateway = await startEnvoyGateway({ socket: rig.socket, backends: false })
    expect(await statusOf(rig.request())).toBe(500)
    expect(gateway.log()).toContain('due to errors in SecurityPolicy')
    expect(gateway.arrived).toEqual([])
  }, 90_000)
}
