/** A service that takes everything, and says it in headers that no server of good will sends. */
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TestCa } from './tls.ts'

const BIDI = '\u202e\u2066'
const MARKUP = `<script>alert(1)</script>"'><img src=x onerror=alert(1)></title></style>`
const ANSI = '\u001b[31mred\u001b]0;title\u0007'

/** What is in every header. */
export const NASTY = {
  'markup and bidi marks': `${MARKUP}${BIDI}\u0085\t${MARKUP}`,
  'ANSI sequences': `${MARKUP}${ANSI}`,
  'folded lines': `${MARKUP}\r\n ${MARKUP}`,
  'bare line ends': `${MARKUP}\n${MARKUP}\rX-More: ${MARKUP}`,
} as const

export type Nastiness = keyof typeof NASTY

export interface HostileService extends AsyncDisposable {
  readonly origin: string
  /** What the last case was refused with; nothing, for nobody revokes here. */
  readonly revoked: Set<unknown>
}

/** Starts it; the first `polite` requests are answered as others do. */
export async function startHostileService(ca: TestCa, what: Nastiness, polite = 0): Promise<HostileService> {
  const text = Buffer.from(NASTY[what], 'utf8').toString('latin1')
  const headers = [
    `Via: ${text}`,
    `X-Cache: ${text}`,
    `Age: ${text}`,
    `Server: ${text}`,
    `WWW-Authenticate: DPoP error="${text}"`,
    `DPoP-Nonce: ${text}`,
    `Set-Cookie: ${text}=${text}`,
    `Location: ${text}`,
  ]
  let count = 0
  const server = createServer(ca.serverFiles(), (_request, response) => {
    count += 1
    const more = count > polite ? headers : []
    const lines = ['HTTP/1.1 200 OK', ...more, 'Content-Length: 0', 'Connection: close']
    response.socket?.end(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    origin: `https://localhost:${port}`,
    revoked: new Set(),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
