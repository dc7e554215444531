import { renameSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { ManualClock } from '../../support/clock.ts'
import { type FakeKubelet, startFakeKubelet } from '../../support/fake-kubelet.ts'
import { type KubeletAccess, openKubeletAccess } from '../../support/kubelet-access.ts'
import { makeTestCa } from '../../support/tls.ts'

let access: KubeletAccess
let kubelet: FakeKubelet
let dir: string
let open: KubeletAccess['open']
beforeEach(async () => {
  access = await openKubeletAccess()
  ;({ kubelet, dir, open } = access)
})
afterEach(() => access.close())

async function failure(run: Promise<unknown>): Promise<string> {
  try {
    await run
  } catch (caught) {
    return caught instanceof Fault ? `${caught.reason}: ${caught.message}` : String(caught)
  }
  return 'no failure'
}

describe('a server of the cluster', () => {
  it('answers who shows the token, and hears it anew when it was renewed', async () => {
    const https = open()
    expect(await https.json('/pods')).toMatchObject({ kind: 'PodList', items: [] })
    kubelet.tokens.clear()
    kubelet.tokens.set('renewed', 'pods')
    expect(await failure(https.json('/pods'))).toContain('does not accept the token of the agent (401)')
    writeFileSync(join(dir, 'next'), 'renewed')
    renameSync(join(dir, 'next'), join(dir, 'token'))
    expect(await https.json('/pods')).toMatchObject({ kind: 'PodList' })
  })

  it('says what a role is missing', async () => {
    kubelet.tokens.set('good', 'nothing')
    expect(await failure(open().json('/pods'))).toContain('does not allow this to the agent (403)')
  })

  it.each([
    ['500', 500, 'answers with status 500'],
    ['a redirect', 'redirect', 'answers with status 302'],
    ['half an answer', 'truncated', 'aborted'],
    ['something else', 'not_json', 'not JSON'],
  ] as const)('is unavailable when it answers with %s', async (_what, trouble, words) => {
    kubelet.trouble = trouble
    const said = await failure(open().json('/pods'))
    expect(said).toMatch(/^cluster_unavailable: the kubelet /)
    if (trouble !== 'truncated') expect(said).toContain(words)
  })

  it.each(['hung', 'slow'] as const)('is given up when it is %s', async (trouble) => {
    kubelet.trouble = trouble
    const clock = new ManualClock()
    const asking = failure(open({ clock }).json('/pods'))
    await new Promise<void>((resolve) => {
      kubelet.onAsk = () => {
        setImmediate(resolve)
      }
    })
    clock.advance(5_000)
    expect(await asking).toBe('cluster_unavailable: the kubelet does not answer in time')
  })

  it('is left at once by who does not want to know any more', async () => {
    kubelet.trouble = 'hung'
    const leaving = new AbortController()
    const asking = failure(open().json('/pods', { signal: leaving.signal }))
    await new Promise<void>((resolve) => {
      kubelet.onAsk = () => {
        setImmediate(resolve)
      }
    })
    leaving.abort()
    expect(await asking).toMatch(/^canceled/)
  })

  it('says nothing longer than is wanted', async () => {
    expect(await failure(open().json('/pods', { maxBytes: 16 }))).toContain('answers with over 16 bytes')
  })

  it('is not asked anything when its CA is another', async () => {
    writeFileSync(join(dir, 'ca.crt'), makeTestCa('other').pem)
    expect(await failure(open().json('/pods'))).toMatch(/^cluster_unavailable: the kubelet cannot be reached/)
    expect(kubelet.asked).toEqual([])
  })

  it('is not asked anything when it has the certificate of another address', async () => {
    await using other = await startFakeKubelet({ dns: 'elsewhere' }, kubelet.ca)
    expect(await failure(open({ url: other.url }).json('/pods'))).toContain('ERR_TLS_CERT_ALTNAME_INVALID')
    expect(other.asked).toEqual([])
  })

  it('is believed again when the file holds its CA', async () => {
    writeFileSync(join(dir, 'ca.crt'), makeTestCa('other').pem)
    const https = open()
    expect(await failure(https.json('/pods'))).toContain('cannot be reached')
    writeFileSync(join(dir, 'ca.crt'), kubelet.ca.pem)
    expect(await https.json('/pods')).toMatchObject({ kind: 'PodList' })
  })

  it('may be pinned by its very certificate, whatever that says', async () => {
    const files = makeTestCa('of its own').serverFiles({ dns: 'node-1' })
    const seen: string[] = []
    const server = await listening(
      createServer(files, (request, response) => {
        seen.push(request.url ?? '')
        response.end('{}')
      }),
    )
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
    const file = join(dir, 'kubelet.crt')
    writeFileSync(file, `${kubelet.ca.pem}\n${files.cert}`)
    expect(await open({ url, verification: { kind: 'pinned', file } }).json('/pods')).toEqual({})
    writeFileSync(file, kubelet.ca.pem)
    const said = await failure(open({ url, verification: { kind: 'pinned', file } }).json('/other'))
    expect(said).toContain('its certificate is not the pinned one')
    expect(seen).toEqual(['/pods'])
    await closed(server)
  })

  it('may be believed without being verified', async () => {
    expect(await open({ verification: { kind: 'skip' } }).json('/pods')).toMatchObject({ kind: 'PodList' })
  })

  it('is asked again over a new connection when the kept one was closed', async () => {
    const https = open()
    await https.json('/pods')
    await kubelet.stop()
    await kubelet.resume()
    expect(await https.json('/pods')).toMatchObject({ kind: 'PodList' })
  })

  it('is told apart from one that is not there', async () => {
    await kubelet.stop()
    expect(await failure(open().json('/pods'))).toContain('ECONNREFUSED')
    await kubelet.resume()
  })

  it.each(['http://127.0.0.1:10250', 'kubelet', 'ftp://x'])('has an https URL, not %s', (url) => {
    expect(() => open({ url })).toThrow(/no https: URL of the kubelet/)
  })

  it('gives a stream line by line, also where a line comes in pieces', async () => {
    const server = await listening(
      createServer(kubelet.ca.serverFiles(), (_request, response) => {
        response.write('{"a":')
        setImmediate(() => {
          response.write('1}\n\n{"b":2}\n{"c"')
          setImmediate(() => response.end(':3}\n'))
        })
      }),
    )
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
    const lines: string[] = []
    for await (const line of open({ url }).lines('/watch')) lines.push(line)
    expect(lines).toEqual(['{"a":1}', '{"b":2}', '{"c":3}'])
    expect(await failure(drain(open({ url }).lines('/watch', { maxBytes: 4 })))).toContain('over 4 bytes')
    await closed(server)
  })
})

async function drain(lines: AsyncGenerator<string>): Promise<void> {
  for await (const _line of lines);
}

function listening(server: Server): Promise<Server> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(server))
  })
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}
