/** What the tests use of oidc-provider, which ships no types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, ServerResponse } from 'node:http'
  import type { TLSSocket } from 'node:tls'

  export interface Context {
    readonly path: string
    readonly method: string
    readonly status: number
    readonly socket: TLSSocket
    readonly req: IncomingMessage
    get(name: string): string
  }

  export interface FoundToken {
    readonly jkt?: string
    readonly clientId?: string
  }

  export default class Provider {
    constructor(issuer: string, configuration: Record<string, unknown>)
    readonly ClientCredentials: { find(value: string): Promise<FoundToken | undefined> }
    callback(): (request: IncomingMessage, response: ServerResponse) => void
    use(middleware: (context: Context, next: () => Promise<void>) => Promise<void>): void
    on(event: string, listener: (...parts: readonly unknown[]) => void): this
  }
}
