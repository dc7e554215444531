/** The configuration to copy of deploy/nginx: the verifier's answers through a real nginx, and what the application gets. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ROOT } from '../../support/built-agent.ts'
import { freePort } from '../../support/envoy.ts'
import { hasNginx, startNginx, type TestNginx } from '../../support/nginx.ts'
import { askOver, openVerifyRig, type Received, type VerifyRig } from '../../support/verify-rig.ts'

if (!hasNginx) console.warn('SKIPPED: the sample of nginx needs nginx; .ci/tools installs it')

describe.skipIf(!hasNginx)('the sample of nginx', () => {
  let rig: VerifyRig
  let nginx: TestNginx
  let port: number
  let dir: string
  const arrived: (readonly string[])[] = []
  const app = createServer((incoming, response) => {
    arrived.push(incoming.rawHeaders)
    response.end('{}')
  })

  beforeAll(async () => {
    rig = await openVerifyRig()
    dir = mkdtempSync(join(tmpdir(), 'hf-nginx-sample-'))
    const { cert, key } = rig.ca.serverFiles()
    writeFileSync(join(dir, 'tls.crt'), cert)
    writeFileSync(join(dir, 'tls.key'), key, { mode: 0o600 })
    await new Promise<void>((resolve) => app.listen(0, '127.0.0.1', resolve))
    port = await freePort()
    const text = readFileSync(join(ROOT, 'deploy/nginx/ingress.conf'), 'utf8')
      .replace('listen 443', `listen 127.0.0.1:${port}`)
      .replaceAll('/etc/nginx/tls/', `${dir}/`)
      .replace('/run/holdfast/public/verifier.sock', rig.socket)
      .replace('forward-auth/orders', 'forward-auth/api')
      .replace('location /orders/', 'location /v1/')
      .replace('127.0.0.1:8080', `127.0.0.1:${(app.address() as AddressInfo).port}`)
    nginx = await startNginx(text, port)
  })
  afterAll(async () => {
    await nginx?.[Symbol.asyncDispose]()
    app.close()
    await rig?.[Symbol.asyncDispose]()
    if (dir) rmSync(dir, { recursive: true, force: true })
  })

  const ask = (received: Received) => askOver(port, received)

  it('lets a right request in, without credentials and with no name but the verified one', async () => {
    const forged = [
      ['X-Holdfast-Caller', 'forged'],
      ['X_Holdfast_Caller', 'forged'],
      ['X-Original-URI', '/forged'],
    ] as const
    expect(await ask(rig.request({ headers: forged }))).toBe(200)
    const lines = arrived.at(-1)?.map((text) => text.toLowerCase()) ?? []
    expect([lines.includes('authorization'), lines.includes('dpop')]).toEqual([false, false])
    expect(lines[lines.indexOf('x-holdfast-caller') + 1]).toBe('client:login/web')
    expect(lines).not.toContain('x_holdfast_caller')
  })

  it.each([
    ['a proof of another key', { proof: { ath: 'x'.repeat(43) } }, 401],
    ['no token', { without: ['Authorization', 'DPoP'] }, 401],
    ['a method that nobody granted', { method: 'DELETE' }, 403],
  ])('refuses %s', async (_what, over, status) => {
    const before = arrived.length
    expect(await ask(rig.request(over))).toBe(status)
    expect(arrived.length).toBe(before)
  })
})
