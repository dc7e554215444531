/** Who sends in the demo: a service through the agent, and a thief who goes to the servers himself. */
import { execFile } from 'node:child_process'
import { request } from 'node:https'
import { promisify } from 'node:util'
import { generateKeyPair, generateProof } from 'dpop'
import { ROOT } from '../support/built-agent.ts'
import type { Parts } from './parts.ts'
import type { Outcome } from './tell.ts'

const PATH = '/v1/items'
const run = promisify(execFile)

/** `curl` as a service types it; neither key nor token is in its process. */
export async function throughAgent({ egress }: Parts): Promise<Outcome> {
  const options = ['-sS', '--max-time', '10', '-w', '\\n%{http_code}', '--unix-socket', egress]
  const { stdout } = await run('curl', [...options, `http://orders${PATH}`])
  const [body = '', code = ''] = stdout.split('\n')
  const { error, sub } = JSON.parse(body) as { error?: { reason: string; owner: string }; sub?: string }
  const status = Number(code)
  return error
    ? { status, reason: error.reason, owner: error.owner }
    : { status, reason: `proved, sub ${sub}`, owner: 'resource server' }
}

/** `holdfast revoke`, as an operator types it. */
export async function revokeTarget({ agent }: Parts): Promise<void> {
  const args = ['dist/holdfast.js', 'revoke', '--target', 'orders', '--dir', agent.dir]
  await run(process.execPath, args, { cwd: ROOT })
}

/** What a log of the resource server holds of the request that it took last. */
export interface Loot {
  readonly token: string
  readonly proof: string
}

export function steal({ careful }: Parts): Loot {
  const last = (name: RegExp) => [...careful.bytes.matchAll(name)].at(-1)?.[1]
  const [token, proof] = [last(/^authorization: DPoP (\S+)/gim), last(/^dpop: (\S+)/gim)]
  if (token === undefined || proof === undefined) throw new Error('there is nothing to steal in the log')
  return { token, proof }
}

/** Sends it directly to the server on `port`. */
export function asThief(
  { ca }: Parts,
  port: number,
  headers: Readonly<Record<string, string>>,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    request({ host: 'localhost', port, path: PATH, ca: ca.pem, headers }, (response) => {
      response.resume()
      const [, error = 'taken'] = /error="([^"]+)"/.exec(response.headers['www-authenticate'] ?? '') ?? []
      resolve({ status: response.statusCode ?? 0, reason: error, owner: 'resource server' })
    })
      .on('error', reject)
      .end()
  })
}

/** A proof that is right in all but the key: the thief has his own. */
export async function forge({ careful }: Parts, token: string): Promise<string> {
  const pair = await generateKeyPair('ES256')
  return generateProof(pair, `https://localhost:${careful.port}${PATH}`, 'GET', undefined, token)
}
