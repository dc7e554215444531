/** Removes what only a verifier may say of a caller, when the request itself says it. */
import type { IncomingMessage } from 'node:http'

/** The names that proxies in front of an application set for it. */
const PREFIX = 'x-holdfast-'
const isClaim = (name: string) => name.slice(0, PREFIX.length).toLowerCase() === PREFIX

/** From all views of the headers. */
export function stripNode(request: IncomingMessage): void {
  const { headers, rawHeaders } = request
  const isClaimed = rawHeaders.some(isClaim) || Object.keys(headers).some(isClaim)
  if (!isClaimed) return
  // Node makes this one of the raw headers when it is first read, for nothing where nothing is to be removed.
  const { headersDistinct } = request
  for (const view of [headers, headersDistinct ?? {}])
    for (const name of Object.keys(view)) if (isClaim(name)) delete view[name]
  for (let at = rawHeaders.length - 2; at >= 0; at -= 2)
    if (isClaim(rawHeaders[at] ?? '')) rawHeaders.splice(at, 2)
}

/** The same request without them; the body stays unread. */
export function stripFetch(request: Request): Request {
  const claims = [...request.headers.keys()].filter(isClaim)
  if (claims.length === 0) return request
  const headers = new Headers(request.headers)
  for (const name of claims) headers.delete(name)
  return new Request(request, { headers })
}
