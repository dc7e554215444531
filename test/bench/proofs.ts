/** Proofs by the agent beside npm dpop in process, a raw signature, and ssh-agent. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as dpop from 'dpop'
import type { Signer, SignerOptions } from '../../src/client/index.ts'
import { type BenchAgent, startAgent, TARGET_URL } from './agent.ts'
import type { Measured } from './figures.ts'
import { openUnary, type Unary } from './grpc.ts'
import type { BenchOptions } from './main.ts'
import { ratioOf, type Sample, takeTurns, type Way } from './rounds.ts'
import { type SshAgent, startSshAgent } from './ssh-agent.ts'

const METHOD = 'GET'
const IN_FLIGHT = 16
const CALLS_IN_FLIGHT = 4
const INPUT = Buffer.alloc(300, 'x')

/** The proof figures. */
export async function measureProofs({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const agent = await startAgent()
  const sshAgent = await startSshAgent()
  const signer = await openSdk({ socket: agent.socket })
  const unary = openUnary(agent.socket)
  try {
    const rounds = { pid: agent.pid, rounds: quick ? 5 : 15, length: quick ? 250 : 400 }
    const busy = await takeTurns(await busyWays(signer, unary), rounds)
    return [...throughputs(busy), ...(await serial(agent, signer, sshAgent, quick))]
  } finally {
    signer.close()
    unary.close()
    sshAgent?.stop()
    await agent.stop()
  }
}

/** The SDK as it is published. */
async function openSdk(options: SignerOptions): Promise<Signer> {
  const sdk = (await import(pathToFileURL(resolve('dist/client.js')).href)) as {
    openSigner(options: SignerOptions): Signer
  }
  return sdk.openSigner(options)
}

async function busyWays(signer: Signer, unary: Unary) {
  const pair = await dpop.generateKeyPair('ES256')
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const batch = (size: number): Way => ({
    size,
    inFlight: CALLS_IN_FLIGHT,
    call: () => signBatch(unary, size),
  })
  return {
    dpop: { inFlight: IN_FLIGHT, call: () => dpop.generateProof(pair, TARGET_URL, METHOD) },
    stream: { inFlight: IN_FLIGHT, call: () => signer.dpop({ method: METHOD, url: TARGET_URL }) },
    raw: { inFlight: 1, call: () => sign('sha256', INPUT, privateKey) },
    batch8: batch(8),
    batch32: batch(32),
  }
}

async function signBatch(unary: Unary, size: number): Promise<void> {
  const requests = Array.from({ length: size }, (_, id) => ({
    id,
    dpop: { method: METHOD, url: TARGET_URL },
  }))
  const { results } = await unary.call('holdfast.v1.ProofService/SignProof', { requests })
  const proofs = (results as readonly { readonly proof?: unknown }[]).filter(({ proof }) => proof)
  if (proofs.length !== size) throw new Error(`${size - proofs.length} of ${size} proofs were refused`)
}

type Busy = Readonly<Record<'dpop' | 'stream' | 'raw' | 'batch8' | 'batch32', readonly Sample[]>>

function throughputs({ dpop: peer, stream, raw, batch8, batch32 }: Busy): readonly Measured[] {
  const rates = (samples: readonly Sample[]) => samples.map(({ perSecond }) => perSecond)
  const costs = (samples: readonly Sample[]) => samples.map(({ ownCpu }) => ownCpu)
  const agentCosts = stream.map(({ agentCpu }) => agentCpu)
  const [rate, cost] = [{ of: 'proofs/s' }, { of: 'µs' }]
  return [
    { name: 'proof_stream_ratio', ...ratioOf(rates(stream), rates(peer)), ...rate },
    { name: 'proof_client_cpu_ratio', ...ratioOf(costs(stream), costs(peer)), ...cost },
    { name: 'proof_agent_cpu_ratio', ...ratioOf(agentCosts, costs(raw)), ...cost },
    { name: 'proof_batch8_ratio', ...ratioOf(rates(batch8), rates(peer)), ...rate },
    { name: 'proof_batch32_ratio', ...ratioOf(rates(batch32), rates(peer)), ...rate },
  ]
}

async function serial(
  agent: BenchAgent,
  signer: Signer,
  sshAgent: SshAgent | undefined,
  quick: boolean,
): Promise<readonly Measured[]> {
  if (!sshAgent) return [{ name: 'proof_serial_ratio', value: undefined, note: 'OpenSSH is not installed' }]
  const { own, peer } = await takeTurns(
    {
      own: { inFlight: 1, call: () => signer.dpop({ method: METHOD, url: TARGET_URL }) },
      peer: { inFlight: 1, call: () => sshAgent.sign(INPUT) },
    },
    { pid: agent.pid, rounds: quick ? 5 : 15, length: quick ? 200 : 300 },
  )
  const times = (samples: readonly Sample[]) => samples.map(({ p50 }) => p50)
  return [{ name: 'proof_serial_ratio', ...ratioOf(times(own), times(peer)), of: 'µs' }]
}
