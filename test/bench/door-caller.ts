/** The application: it sends a request through the door, or makes its proof itself and sends it with fetch. */
import { randomUUID } from 'node:crypto'
import { Agent, request } from 'node:http'
import * as dpop from 'dpop'
import { calculateJwkThumbprint } from 'jose'
import { ecPair } from '../support/certificates.ts'
import { signToken } from '../support/tokens.ts'
import type { CallerFound, CallerOptions } from './door.ts'
import { takeTurns } from './rounds.ts'

const PATH = '/v1/items/42'
const OK = 200
const IN_FLIGHT = 16

const options = JSON.parse(process.argv[2] ?? '{}') as CallerOptions
const { egress: socketPath, port, pid, quick } = options
const url = `https://localhost:${port}${PATH}`
const keepAlive = new Agent({ keepAlive: true })

function viaEgress(): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { Host: 'orders' }
    const outgoing = request({ socketPath, path: PATH, headers, agent: keepAlive }, (response) => {
      response.resume()
      response.once('end', () =>
        response.statusCode === OK ? resolve() : reject(new Error(`status ${response.statusCode}`)),
      )
    })
    outgoing.once('error', reject)
    outgoing.end()
  })
}

/** As long as a token of the server, and bound to a key of this process; who issued it, nobody asks. */
async function openDirect(): Promise<() => Promise<void>> {
  const pair = await dpop.generateKeyPair('ES256', { extractable: true })
  const jkt = await calculateJwkThumbprint(await crypto.subtle.exportKey('jwk', pair.publicKey))
  const now = Math.floor(Date.now() / 1000)
  const claims = {
    iss: `https://localhost:${port}`,
    aud: 'https://orders.example.org/',
    client_id: 'shop',
    sub: 'shop',
    scope: 'orders',
    jti: randomUUID(),
    iat: now,
    exp: now + 3_600,
    cnf: { jkt },
  }
  const token = signToken({ alg: 'ES256', typ: 'at+jwt', kid: 'k1' }, claims, ecPair())
  return async () => {
    const proof = await dpop.generateProof(pair, url, 'GET', undefined, token)
    const response = await fetch(url, { headers: { Authorization: `DPoP ${token}`, DPoP: proof } })
    await response.arrayBuffer()
    if (response.status !== OK) throw new Error(`status ${response.status}`)
  }
}

const direct = await openDirect()
const ways = (inFlight: number) => ({
  egress: { inFlight, call: viaEgress },
  direct: { inFlight, call: direct },
})
const rounds = { pid, rounds: quick ? 5 : 15, length: quick ? 300 : 500 }
const serial = await takeTurns(ways(1), rounds)
const busy = await takeTurns(ways(IN_FLIGHT), rounds)
process.send?.({ serial, busy } satisfies CallerFound)
process.once('disconnect', () => process.exit())
