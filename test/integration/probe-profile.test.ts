/** What a probe may do to a place that others use: safe methods, marked and paced requests, and only to hosts it is told. */
import type { IncomingMessage } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { probe } from '../../src/cli/probe.ts'
import { openProbeLab, PROBE_DEFAULTS, type ProbeLab } from '../support/probe-lab.ts'
import { startProbedService } from '../support/probed-service.ts'

let lab: ProbeLab

beforeAll(async () => {
  lab = await openProbeLab()
})
afterAll(() => lab[Symbol.asyncDispose]())

/** Answers as `status` says and sends everybody elsewhere; keeps what came. */
async function startSpy(status: number, location: string) {
  const came: IncomingMessage[] = []
  const server = createServer(lab.rig.ca.serverFiles(), (request, response) => {
    came.push(request)
    response.writeHead(status, { location, 'alt-svc': 'h2="elsewhere.invalid:443"' }).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    came,
    host: `localhost:${port}`,
    origin: `https://localhost:${port}`,
    revoked: new Set<unknown>(),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

describe('the production profile', () => {
  it.each([
    ['GET', false],
    ['HEAD', true],
  ] as const)('sends %s alone, each request marked with the run', async (method, head) => {
    await using spy = await startSpy(200, '/')
    const { report } = await lab.run(spy, { quick: true, head })
    expect(new Set(spy.came.map((each) => each.method))).toEqual(new Set([method]))
    expect(new Set(spy.came.map(({ headers }) => headers['holdfast-probe']))).toEqual(new Set([report.run]))
    expect(spy.came.every(({ url }) => url?.startsWith(`/v1/items?holdfast_probe=${report.run}-`))).toBe(true)
    expect(new Set(spy.came.map(({ headers }) => headers.host))).toEqual(new Set([spy.host]))
    expect(report.requests).toBe(spy.came.length)
  })

  it('follows no redirect, and trusts no answer about other places', async () => {
    await using elsewhere = await startSpy(200, '/')
    await using spy = await startSpy(302, `${elsewhere.origin}/v1/items`)
    const { code, report } = await lab.run(spy, { quick: true })
    expect(spy.came.length).toBeGreaterThan(0)
    expect(elsewhere.came).toEqual([])
    expect([code, report.inconclusive]).toEqual([2, expect.stringContaining('302')])
  })

  it('waits between any two requests, as the rate says', async () => {
    await using service = await startProbedService({ rig: lab.rig })
    const options = {
      ...(await lab.files()),
      ...PROBE_DEFAULTS,
      output: 'json',
      quick: true,
      rate: 4,
    } as const
    const io = lab.io()
    const waits: number[] = []
    const slept = Object.assign(io, { sleep: async (ms: number) => void waits.push(ms) })
    await probe(`${service.origin}/v1/items`, options, slept)
    const { requests } = JSON.parse(io.written.out)
    expect(waits.filter((ms) => ms === 250)).toHaveLength(requests - 1)
  })

  it('counts and paces what goes to an inner place by both of its names', async () => {
    await using front = await startSpy(200, '/')
    await using inner = await startSpy(421, '/')
    const io = lab.io()
    const waits: number[] = []
    const slept = Object.assign(io, { sleep: async (ms: number) => void waits.push(ms) })
    const own = { output: 'json', quick: true, rate: 4, behind: `${inner.origin}/v1/items` } as const
    await probe(`${front.origin}/v1/items`, { ...(await lab.files()), ...PROBE_DEFAULTS, ...own }, slept)
    expect(new Set(inner.came.map(({ headers }) => headers.host))).toEqual(new Set([inner.host, front.host]))
    const sent = front.came.length + inner.came.length
    expect(JSON.parse(io.written.out).requests).toBe(sent)
    expect(waits.filter((ms) => ms === 250)).toHaveLength(sent - 1)
  })

  it.each([
    ['a rate that is no probing any more', { rate: 101 }, /--rate is 101/],
    ['a hop without a URL', { hop: ['edge'] }, /NAME=URL/],
    ['a hop by plain HTTP', { hop: ['edge=http://gateway.example.org/'] }, /plain HTTP/],
    [
      'a hop that is named twice',
      { hop: ['edge=https://localhost:1/', 'edge=https://localhost:1/'] },
      /twice/,
    ],
    ['an audit that is not there', { audit: ['/nonexistent/audit.jsonl'] }, /cannot be read/],
    ['an audit that is named twice', { audit: ['b=/dev/null', 'b=/dev/null'] }, /named twice/],
  ])('refuses %s before anything is sent', async (_what, over, said) => {
    await using spy = await startSpy(200, '/')
    await expect(lab.run(spy, { quick: true, ...over })).rejects.toThrow(said)
    expect(spy.came).toEqual([])
  })

  it('refuses a URL by plain HTTP but to this host', async () => {
    const far = { origin: 'http://api.example.org', revoked: new Set<unknown>() }
    await expect(lab.run(far)).rejects.toThrow(/plain HTTP/)
  })
})
