/** JWT-SVIDs over one connection: fetched warm, and checked. */
import { startAgent } from './agent.ts'
import { startBareGrpc } from './bare-grpc.ts'
import type { Measured } from './figures.ts'
import { openUnary } from './grpc.ts'
import type { BenchOptions } from './main.ts'
import { median, type Sample, takeTurns } from './rounds.ts'

const AUDIENCE = 'orders.bench.holdfast.test'
const IN_FLIGHT = 8

/** The JWT-SVID figures. */
export async function measureTokens({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const agent = await startAgent()
  const bare = await startBareGrpc()
  const unary = openUnary(agent.socket)
  const bareUnary = openUnary(bare.socket)
  try {
    const fetch = () => unary.call('SpiffeWorkloadAPI/FetchJWTSVID', { audience: [AUDIENCE] })
    const { svids } = await fetch()
    const [first] = svids as readonly { readonly svid: string }[]
    const question = { audience: AUDIENCE, svid: first?.svid }
    const bareFetch = () => bareUnary.call('SpiffeWorkloadAPI/FetchJWTSVID', { audience: [AUDIENCE] })
    const ways = {
      bare: { inFlight: IN_FLIGHT, call: bareFetch, pid: bare.pid },
      fetch: { inFlight: IN_FLIGHT, call: fetch },
      validate: {
        inFlight: IN_FLIGHT,
        call: () => unary.call('SpiffeWorkloadAPI/ValidateJWTSVID', question),
      },
    }
    const found = await takeTurns(ways, { pid: agent.pid, rounds: quick ? 5 : 15, length: quick ? 300 : 500 })
    const cost = (samples: readonly Sample[]) => median(samples.map(({ agentCpu }) => agentCpu))
    const floor = cost(found.bare)
    return [
      { name: 'jwt_warm_us', value: cost(found.fetch), floor },
      { name: 'validate_us', value: cost(found.validate), floor },
    ]
  } finally {
    unary.close()
    bareUnary.close()
    bare.stop()
    await agent.stop()
  }
}
