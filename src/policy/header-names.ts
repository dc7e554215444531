/** Names of header fields that no application decides on, in lower case: they belong to one hop, or to the agent. */

/** Of one connection (RFC 9110 s.7.6.1). */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])
/** Said anew for each hop; `Connection` may not take them away. */
export const FRAMING: ReadonlySet<string> = new Set(['host', 'content-length', 'transfer-encoding', 'expect'])
const DENIED: ReadonlySet<string> = new Set([
  'authorization',
  'forwarded',
  'workload.spiffe.io',
  'x-method-override',
  'x-real-ip',
])
const DENIED_PREFIXES: readonly string[] = [
  'dpop',
  'proxy-',
  'x-forwarded',
  'x-original-',
  'x-rewrite-',
  'x-http-method',
  'client-cert',
  'x-client-cert',
  'x-ssl-',
  'signature',
  'workload-',
  'oauth-client-attestation',
  'holdfast-',
]

/** Whether only the agent or the platform may say it. */
// Servers that build variables of names read `_` as `-` (RFC 3875 s.4.1.18): callers make the one spelling of both.
export function isDenied(name: string): boolean {
  return DENIED.has(name) || DENIED_PREFIXES.some((prefix) => name.startsWith(prefix))
}

const CREDENTIALS: readonly string[] = [
  'authorization',
  'dpop',
  'holdfast-',
  'oauth-client-attestation',
  'proxy-authorization',
  'signature',
  'workload-',
]

/** Whether it proves who sends, or tells the agent so: where the agent signs, nobody else says it. */
export function isCredential(name: string): boolean {
  return CREDENTIALS.some((prefix) => name.startsWith(prefix))
}
