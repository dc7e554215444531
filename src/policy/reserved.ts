/**
 * Reserved audiences: what an authorization server that policy names might take for itself. A JWT-SVID for one of them is
 * a bearer credential there, so this errs towards too many: every spelling that a lenient server could accept.
 */
import type { Server } from './grant.ts'

/** Whether an audience names one of `servers`: issuer, token endpoint, its host, or anything on its origin. */
export function reservedAudiences(servers: readonly Server[]): (audience: string) => boolean {
  if (servers.length === 0) return () => false
  const texts = new Set(servers.flatMap(textsOf).map(plain))
  const hosts = new Set(servers.flatMap(textsOf).flatMap((text) => placeOf(text) ?? []))
  return (audience) => {
    if (texts.has(plain(audience))) return true
    const place = placeOf(audience) ?? placeOf(`https://${audience.trim()}`)
    return place !== undefined && hosts.has(place)
  }
}

/** Whether `audience` is one that `server` might take for itself. */
export function isAudienceOf(server: Server, audience: string): boolean {
  return reservedAudiences([server])(audience)
}

function textsOf(server: Server): readonly string[] {
  return server.tokenEndpoint === undefined ? [server.issuer] : [server.issuer, server.tokenEndpoint]
}

function plain(text: string): string {
  return text.trim().toLowerCase().replace(/\/+$/, '')
}

/** Host and port without scheme; the URL parser's repairs are wanted here, since they only reserve more. */
function placeOf(text: string): string | undefined {
  const trimmed = text.trim()
  if (!URL.canParse(trimmed)) return undefined
  const url = new URL(trimmed)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return undefined
  return `${url.hostname.replace(/\.$/, '')}:${url.port}`
}
