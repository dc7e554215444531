import { describe, expect, it } from 'vitest'
import { type Connection, type Ending, loadServices } from '../../src/client/grpc.ts'
import { startAgent } from '../support/agent.ts'
import { until } from '../support/until.ts'

/** Opens a stream that stays open; resolves with what ends it, or with how it was refused. */
function open(connection: Connection): Promise<(() => void) | Ending> {
  return new Promise((resolve) => {
    const listener = { onMessage: () => resolve(() => call.cancel()), onEnd: resolve }
    const call = connection.open('SpiffeWorkloadAPI/FetchX509Bundles', listener, {})
  })
}

describe('the calls of one uid', () => {
  it('are counted over all its connections: the one too many is refused, for now, and room comes back', async () => {
    await using agent = await startAgent({
      config: (config) => ({ ...config, limits: { ...config.limits, callsPerUid: 3 } }),
    })
    const connections = [loadServices()(agent.socket), loadServices()(agent.socket)] as const
    const [first, second] = connections
    const [cancel, ...others] = await Promise.all([open(first), open(first), open(second)])
    expect([cancel, ...others].map((one) => typeof one)).toEqual(['function', 'function', 'function'])
    expect(await open(second)).toMatchObject({ code: 14 })
    if (typeof cancel === 'function') cancel()
    await until('room for a call', async () => typeof (await open(second)) === 'function')
    first.close()
    second.close()
  })
})
