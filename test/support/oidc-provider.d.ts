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
    readonly oidc: { readonly params: Readonly<Record<string, unknown>>; readonly client: object }
    body: unknown
    get(name: string): string
  }

  export interface FoundToken {
    destroy(): Promise<void>
    readonly jkt?: string
    readonly clientId?: string
  }

  export interface ResourceServer {
    readonly scopes: ReadonlySet<string>
  }

  /** A token that is being made. */
  export interface IssuedToken {
    resourceServer: ResourceServer
    scope: string
    readonly expiration: number
    readonly tokenType: string
    save(): Promise<string>
  }

  type OauthError = new (description: string) => Error
  export const errors: { readonly InvalidRequest: OauthError; readonly InvalidGrant: OauthError }

  export default class Provider {
    constructor(issuer: string, configuration: Record<string, unknown>)
    readonly issuer: string
    readonly ClientCredentials: { find(value: string): Promise<FoundToken | undefined> }
    readonly AccessToken: {
      new (parts: Readonly<Record<string, unknown>>): IssuedToken
      find(value: string): Promise<FoundToken | undefined>
    }
    registerGrantType(
      name: string,
      handler: (context: Context) => Promise<void>,
      parameters: readonly string[],
      dupes: readonly string[],
    ): void
    callback(): (request: IncomingMessage, response: ServerResponse) => void
    use(middleware: (context: Context, next: () => Promise<void>) => Promise<void>): void
    on(event: string, listener: (...parts: readonly unknown[]) => void): this
  }
}

declare module 'oidc-provider/lib/helpers/grants.js' {
  import type Provider from 'oidc-provider'
  import type { Context, ResourceServer } from 'oidc-provider'

  export function validateDpop(provider: Provider, context: Context): Promise<unknown>
  export function checkDpopRequired(provider: Provider, context: Context, proof: unknown): void
  export function resolveRequestedResources(
    provider: Provider,
    context: Context,
  ): Promise<readonly ResourceServer[]>
  export function validateClientScope(provider: Provider, context: Context): ReadonlySet<string>
  export function buildTokenResponse(provider: Provider, parts: Readonly<Record<string, unknown>>): object
}

declare module 'oidc-provider/lib/helpers/grant_common.js' {
  import type Provider from 'oidc-provider'
  import type { Context } from 'oidc-provider'

  export function applyDpopBinding(
    provider: Provider,
    context: Context,
    proof: unknown,
    token: object,
  ): Promise<void>
}
