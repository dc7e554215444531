/** The verifier beside what it cannot do without: the same signatures, verified by node:crypto and nothing else. */
import { type KeyObject, verify } from 'node:crypto'
import type { Inbound } from '../../src/ingress/inbound.ts'
import { openVerifier, type TestVerifier } from '../support/verifier.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { ratioOf } from './rounds.ts'

// Short batches take turns: a neighbour that comes and goes is felt by both sides.
const BATCH = 250
const WARM_BATCHES = 12

/** A request with its signatures, as node:crypto takes them: that of the token, then that of the proof. */
interface Prepared {
  readonly inbound: Inbound
  readonly signatures: readonly Signature[]
}

interface Signature {
  readonly input: Buffer
  readonly bytes: Buffer
  readonly key: KeyObject
}

/** The figures of one request: of a token that is new, and of one that was verified before. */
export async function measureVerifier({ quick }: BenchOptions): Promise<readonly Measured[]> {
  const verifier = await openVerifier(undefined, { limit: 1_000_000, share: 1_000_000 })
  const known = verifier.token()
  const ways = {
    verify_ratio: { prepare: () => prepare(verifier, verifier.token()), signatures: 2 },
    verify_known_ratio: { prepare: () => prepare(verifier, known), signatures: 1 },
  } as const
  const costs = {
    verify_ratio: [[], []] as [number[], number[]],
    verify_known_ratio: [[], []] as [number[], number[]],
  }
  const names = Object.keys(ways) as (keyof typeof ways)[]
  await verifier.verify(prepare(verifier, known).inbound)
  for (let round = -WARM_BATCHES; round < (quick ? 20 : 60); round++)
    for (const name of names) {
      const { prepare: make, signatures } = ways[name]
      const batch = Array.from({ length: BATCH }, make)
      const own = await costOf(() => verifyAll(verifier, batch))
      const raw = await costOf(() => verifyRaw(batch, signatures))
      if (round < 0) continue
      costs[name][0].push(own)
      costs[name][1].push(raw)
    }
  return names.map((name) => ({ name, ...ratioOf(...costs[name]), of: 'µs' }))
}

function prepare(verifier: TestVerifier, token: string): Prepared {
  const request = verifier.request({ token })
  // As a parser leaves them: texts in one piece.
  const headers = request.headers.map((text) => Buffer.from(text, 'latin1').toString('latin1'))
  const inbound = { ...request, headers }
  const proof = headers[headers.indexOf('DPoP') + 1] ?? ''
  const signatures = [
    signatureOf(token, verifier.issuer.publicKey),
    signatureOf(proof, verifier.key.publicKey),
  ]
  return { inbound, signatures }
}

function signatureOf(jws: string, key: KeyObject): Signature {
  const end = jws.lastIndexOf('.')
  return { input: Buffer.from(jws.slice(0, end)), bytes: Buffer.from(jws.slice(end + 1), 'base64url'), key }
}

/** CPU µs that `work` takes a request. */
async function costOf(work: () => Promise<void> | void): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / BATCH
}

async function verifyAll(verifier: TestVerifier, batch: readonly Prepared[]): Promise<void> {
  for (const { inbound } of batch) await verifier.verify(inbound)
}

/** The last `count` signatures of each: the proof's comes last. */
function verifyRaw(batch: readonly Prepared[], count: number): void {
  for (const { signatures } of batch)
    for (const { input, bytes, key } of signatures.slice(-count))
      if (!verify('sha256', input, { key, dsaEncoding: 'ieee-p1363' }, bytes))
        throw new Error('a signature does not verify')
}
