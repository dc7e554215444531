/** HTTP methods, as far as policy knows them. */

// A proof for TRACE echoes credentials, one for CONNECT opens a tunnel (RFC 9110 s.9.3).
/** No list can grant them. */
export const NEVER_GRANTED: ReadonlySet<string> = new Set(['TRACE', 'CONNECT'])

/** What the replay lab may send: nothing that changes anything (RFC 9110 s.9.2.1). */
export const PROBE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD'])
