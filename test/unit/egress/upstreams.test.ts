/** Connections to targets over all workloads: real ones, to a server on loopback. */
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeController } from '../../../src/attest/instances.ts'
import { Fault } from '../../../src/base/fault.ts'
import type { Pool } from '../../../src/egress/pool.ts'
import { Upstreams } from '../../../src/egress/upstreams.ts'
import type { Target, TargetPlatform } from '../../../src/policy/grant.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'
import { ManualClock } from '../../support/clock.ts'

let server: Server
let port = 0

beforeAll(async () => {
  server = createServer((_request, response) => response.end('ok'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  port = (server.address() as AddressInfo).port
})

afterAll(() => {
  server.closeAllConnections()
  server.close()
})

const platform = { origins: ['http://orders.test'], tls: {}, addresses: [] } as unknown as TargetPlatform
const target: Target = { name: 'orders', identity: undefined, platform, application: undefined }

function open(most: number) {
  const dial = async () => connect({ port, host: '127.0.0.1' })
  const upstreams = new Upstreams({ dial, clock: new ManualClock(), connectTimeout: 5_000, limit: 64, most })
  const poolOf = (name: string, at: number): Pool =>
    upstreams.poolOf({
      spiffeId: parseSpiffeId(`spiffe://example.org/${name}`),
      instance: { key: `process:${at}:1`, signal: makeController().signal },
      target,
      platform,
      origin: 'http://orders.test',
    })
  return { upstreams, poolOf, [Symbol.dispose]: () => upstreams.stop() }
}

const outgoing = {
  method: 'GET',
  path: '/',
  origin: 'http://orders.test',
  headers: ['Host', 'orders.test'],
  hasBody: false,
  wantsTrailers: false,
}

/** The status, or why there is none. */
async function ask(pool: Pool): Promise<number | string> {
  try {
    const attempt = await pool.send(outgoing)
    attempt.finish([])
    const { status, body } = await attempt.answer
    for await (const _part of body);
    return status
  } catch (caught) {
    return Fault.from(caught).reason
  }
}

describe('threats row 26: connections to targets over all workloads', () => {
  it('are not all of one identity, in however many instances', async () => {
    using egress = open(8)
    const pools = [1, 2, 3, 4].map((at) => egress.poolOf('web', at))
    const crowd = await Promise.all(pools.flatMap((pool) => [ask(pool), ask(pool)]))
    expect(crowd.filter((each) => each === 200)).toHaveLength(4)
    expect(crowd.filter((each) => each === 'overloaded')).toHaveLength(4)
    expect(await ask(egress.poolOf('db', 6))).toBe(200)
    expect(egress.upstreams.connections).toBe(5)
    egress.upstreams.close({ spiffeId: 'spiffe://example.org/web' })
    await expect.poll(() => egress.upstreams.connections).toBe(1)
    expect(await ask(egress.poolOf('web', 7))).toBe(200)
  })

  it('are not in pools of one identity alone, which gets no more by ending idle ones of others', async () => {
    using egress = open(10)
    const idle = egress.poolOf('db', 9)
    expect(await ask(idle)).toBe(200)
    for (let at = 0; at < 4; at += 1) egress.poolOf('web', at).take()
    egress.poolOf('web', 5)
    egress.poolOf('web', 6).take()
    expect(() => egress.poolOf('web', 4)).toThrow(/example\.org\/web/)
    expect(egress.poolOf('db', 9)).toBe(idle)
    egress.upstreams.close({ instance: 'process:0:1' })
    egress.poolOf('web', 4)
  })
})
