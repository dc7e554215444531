/** Removes what an application must not find in a request: what only a verifier may say, and a token it has a handle for. */
import type { IncomingMessage } from 'node:http'
import type { VerifiedRequest } from './outcome.ts'

/** The names that proxies in front of an application set for it. */
const PREFIX = 'x-holdfast-'
/** What a handle stands for, and proofs that are used up. */
const SPENT: ReadonlySet<string> = new Set([
  'authorization',
  'dpop',
  'workload-identity-token',
  'workload-proof-token',
])

const isClaim = (name: string) => name.slice(0, PREFIX.length).toLowerCase() === PREFIX
const isClaimOrSpent = (name: string) => isClaim(name) || SPENT.has(name.toLowerCase())

function leavesOf(verified: VerifiedRequest | undefined): (name: string) => boolean {
  return verified?.handle === undefined ? isClaim : isClaimOrSpent
}

/** From all views of the headers. */
export function stripNode(request: IncomingMessage, verified: VerifiedRequest | undefined): void {
  const leaves = leavesOf(verified)
  const { headers, rawHeaders } = request
  if (!rawHeaders.some((name, at) => at % 2 === 0 && leaves(name)) && !Object.keys(headers).some(leaves))
    return
  // Node makes this one of the raw headers when it is first read, for nothing where nothing is to be removed.
  const { headersDistinct } = request
  for (const view of [headers, headersDistinct ?? {}])
    for (const name of Object.keys(view)) if (leaves(name)) delete view[name]
  for (let at = rawHeaders.length - 2; at >= 0; at -= 2)
    if (leaves(rawHeaders[at] ?? '')) rawHeaders.splice(at, 2)
}

/** The same request without them; the body stays unread. */
export function stripFetch(request: Request, verified: VerifiedRequest | undefined): Request {
  const leaving = [...request.headers.keys()].filter(leavesOf(verified))
  if (leaving.length === 0) return request
  const headers = new Headers(request.headers)
  for (const name of leaving) headers.delete(name)
  return new Request(request, { headers })
}
