/** The verifier beside what it cannot do without: the same signatures, verified by node:crypto and nothing else. */
import { type KeyObject, verify } from 'node:crypto'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import type { Inbound } from '../../src/ingress/inbound.ts'
import { openDocuments, openMiddleware } from '../support/middleware.ts'
import { openVerifier, type TestVerifier } from '../support/verifier.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { ratioOf } from './rounds.ts'

// Short batches take turns: a neighbour that comes and goes is felt by both sides.
const BATCH = 250
const WARM_BATCHES = 12
// One for all requests, as with keep-alive: it costs them nothing.
const CONNECTION = new Socket()

/** A request with its signatures, as node:crypto takes them: that of the token, then that of the proof. */
interface Prepared {
  readonly inbound: Inbound
  /** As node's parser leaves it. */
  readonly message: IncomingMessage
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
  await using keys = await openDocuments()
  const middleware = openMiddleware(verifier, keys, 'api', { replay: { limit: 1_000_000 } }).verifier
  const known = verifier.token()
  const [fresh, again] = [() => prepare(verifier, verifier.token()), () => prepare(verifier, known)]
  const byAgent = ({ inbound }: Prepared) => verifier.verify(inbound)
  const byMiddleware = async ({ message }: Prepared) => {
    const { verified } = await middleware.node(message)
    if (!verified) throw new Error('the middleware refuses a right request')
  }
  const ways = {
    verify_ratio: { prepare: fresh, by: byAgent, signatures: 2 },
    verify_known_ratio: { prepare: again, by: byAgent, signatures: 1 },
    middleware_ratio: { prepare: fresh, by: byMiddleware, signatures: 2 },
    middleware_known_ratio: { prepare: again, by: byMiddleware, signatures: 1 },
  } as const
  const costs: Readonly<Record<keyof typeof ways, [number[], number[]]>> = {
    verify_ratio: [[], []],
    verify_known_ratio: [[], []],
    middleware_ratio: [[], []],
    middleware_known_ratio: [[], []],
  }
  const names = Object.keys(ways) as (keyof typeof ways)[]
  for (const by of [byAgent, byMiddleware]) await by(prepare(verifier, known))
  for (let round = -WARM_BATCHES; round < (quick ? 20 : 60); round++)
    for (const name of names) {
      const { prepare: make, by, signatures } = ways[name]
      const batch = Array.from({ length: BATCH }, make)
      const own = await costOf(() => verifyAll(by, batch))
      const raw = await costOf(() => verifyRaw(batch, signatures))
      if (round < 0) continue
      costs[name][0].push(own)
      costs[name][1].push(raw)
    }
  middleware.close()
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
  return { inbound, message: messageOf(inbound), signatures }
}

function messageOf({ method, path, headers }: Inbound): IncomingMessage {
  const message = new IncomingMessage(CONNECTION)
  return Object.assign(message, { method, url: path, rawHeaders: [...headers] })
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

async function verifyAll(
  by: (request: Prepared) => Promise<unknown>,
  batch: readonly Prepared[],
): Promise<void> {
  for (const request of batch) await by(request)
}

/** The last `count` signatures of each: the proof's comes last. */
function verifyRaw(batch: readonly Prepared[], count: number): void {
  for (const { signatures } of batch)
    for (const { input, bytes, key } of signatures.slice(-count))
      if (!verify('sha256', input, { key, dsaEncoding: 'ieee-p1363' }, bytes))
        throw new Error('a signature does not verify')
}
