/** HTTP methods, as far as policy knows them. */

// A proof for TRACE echoes credentials, one for CONNECT opens a tunnel (RFC 9110 s.9.3).
const NEVER_GRANTED: ReadonlySet<string> = new Set(['TRACE', 'CONNECT'])

/** Whether no list can grant it, in whatever letters: methods have their case, but clients and servers change it. */
export function isNeverGranted(method: string): boolean {
  return NEVER_GRANTED.has(method.toUpperCase())
}

/** What the replay lab may send: nothing that changes anything (RFC 9110 s.9.2.1). */
export const PROBE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD'])
