/** The configuration to copy of deploy/traefik, through a real Traefik where it is installed. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createApp } from 'node:http'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ROOT } from '../../support/built-agent.ts'
import { freePort } from '../../support/envoy.ts'
import { until } from '../../support/until.ts'
import { askOver, openVerifyRig, type Received, type VerifyRig } from '../../support/verify-rig.ts'

const hasTraefik = spawnSync('traefik', ['version']).status === 0
if (hasTraefik) describe('the sample of Traefik', suite)
else {
  console.warn('SKIPPED: traefik is not installed')
  it.skip('the sample of Traefik is driven', () => {})
}

function suite(): void {
  let rig: VerifyRig
  let traefik: ChildProcess
  let forwarder: Server
  let port: number
  let dir: string
  const arrived: (readonly string[])[] = []
  const app = createApp((incoming, response) => {
    arrived.push(incoming.rawHeaders.map((text) => text.toLowerCase()))
    response.end('{}')
  })

  beforeAll(async () => {
    rig = await openVerifyRig()
    dir = mkdtempSync(join(tmpdir(), 'hf-traefik-'))
    forwarder = createServer((socket) => {
      const inner = connect({ path: rig.socket })
      for (const each of [socket, inner]) each.on('error', () => each.destroy())
      socket.pipe(inner).pipe(socket)
    })
    const [appPort, forwarderPort] = [await portOf(app), await portOf(forwarder)]
    const text = readFileSync(join(ROOT, 'deploy/traefik/dynamic.yaml'), 'utf8')
      .replace('127.0.0.1:9466', `127.0.0.1:${forwarderPort}`)
      .replace('forward-auth/orders', 'forward-auth/api')
      .replace('/orders/', '/v1/')
      .replace('Host(`api.example.org`)', 'Host(`internal.example.org`)')
      .replace('127.0.0.1:8080', `127.0.0.1:${appPort}`)
    writeFileSync(join(dir, 'dynamic.yaml'), text)
    port = await freePort()
    traefik = spawn('traefik', [
      `--entrypoints.websecure.address=127.0.0.1:${port}`,
      `--providers.file.filename=${join(dir, 'dynamic.yaml')}`,
      '--global.checknewversion=false',
      '--global.sendanonymoususage=false',
    ])
    let output = ''
    for (const stream of [traefik.stdout, traefik.stderr]) stream?.on('data', (chunk) => (output += chunk))
    await until('traefik to route', async () => {
      if (traefik.exitCode !== null) throw new Error(output)
      return (await ask(rig.request({ without: ['Authorization', 'DPoP'] })).catch(() => 404)) === 401
    })
  }, 60_000)
  afterAll(async () => {
    traefik?.kill('SIGKILL')
    forwarder?.close()
    app.closeAllConnections()
    app.close()
    await rig?.[Symbol.asyncDispose]()
    if (dir) rmSync(dir, { recursive: true, force: true })
  })

  const ask = (received: Received) => askOver(port, received)

  it('lets a right request in, without credentials and with no name but the verified one', async () => {
    const forged = [
      ['X-Holdfast-Caller', 'forged'],
      ['X-Holdfast-Scopes', 'forged'],
      ['X-Forwarded-Uri', '/forged'],
      ['X-Forwarded-Method', 'DELETE'],
      ['X-Forwarded-Host', 'forged.test'],
    ] as const
    expect(await ask(rig.request({ headers: forged }))).toBe(200)
    const lines = arrived.at(-1) ?? []
    expect([lines.includes('authorization'), lines.includes('dpop')]).toEqual([false, false])
    expect(lines[lines.indexOf('x-holdfast-caller') + 1]).toBe('client:login/web')
    expect(lines.filter((text) => text === 'x-holdfast-caller')).toHaveLength(1)
    expect(lines).not.toContain('forged')
  })

  it.each([
    ['a proof of another key', { proof: { ath: 'x'.repeat(43) } }, 401],
    ['no token', { without: ['Authorization', 'DPoP'] }, 401],
    ['a method that nobody granted', { method: 'DELETE' }, 403],
    ['a header that CGI takes for one of ours', { headers: [['X_Holdfast-Caller', 'forged']] }, 403],
  ] as const)('refuses %s', async (_what, over, status) => {
    const before = arrived.length
    expect(await ask(rig.request(over))).toBe(status)
    expect(arrived.length).toBe(before)
  })

  it('takes no proof twice', async () => {
    const received = rig.request()
    expect([await ask(received), await ask(received)]).toEqual([200, 401])
  })
}

async function portOf(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}
