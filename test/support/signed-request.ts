/**
 * HTTP message signatures read as RFC 9421 s.3.2 says, step by step and with node:crypto alone: a second opinion on
 * what the agent signs. Knows what the WIMSE profile uses, and trusts the message to be well-formed.
 */
import { type KeyObject, verify } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

/** Whether the signature `wimse` of a request as it arrived is that of `key`, an EC key on P-256. */
export function isSigned(request: IncomingMessage, key: KeyObject): boolean {
  const input = String(request.headers['signature-input'])
  const signature = String(request.headers['signature'])
  const params = input.slice(input.indexOf('=') + 1)
  const list = params.slice(1, params.indexOf(')'))
  const names = list.split(' ').map((each) => each.slice(1, -1))
  const [path = '', query = ''] = String(request.url).split('?')
  const derived: Readonly<Record<string, string>> = {
    '@method': String(request.method),
    '@path': path,
    '@query': `?${query}`,
  }
  const lines = names.map((name) => `"${name}": ${derived[name] ?? fieldOf(request, name)}`)
  const base = [...lines, `"@signature-params": ${params}`].join('\n')
  const bytes = Buffer.from(signature.slice('wimse=:'.length, -1), 'base64')
  return verify('sha256', Buffer.from(base), { key, dsaEncoding: 'ieee-p1363' }, bytes)
}

function fieldOf({ rawHeaders }: IncomingMessage, name: string): string {
  const values = rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name)
  if (values.length === 0) throw new Error(`${name} is covered and did not come`)
  return values.join(', ')
}
