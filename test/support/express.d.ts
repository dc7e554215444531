/** What the tests use of Express, which ships no types. */
declare module 'express' {
  import type { IncomingMessage, ServerResponse } from 'node:http'

  type Next = (error?: unknown) => void
  export type Handler = (request: IncomingMessage, response: ServerResponse, next: Next) => void

  export interface App {
    (request: IncomingMessage, response: ServerResponse): void
    use(...handlers: (string | Handler | App)[]): App
  }

  const express: { (): App; Router(): App; json(): Handler; raw(options: { type: string }): Handler }
  export default express
}
