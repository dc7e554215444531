/** The port to HTTPS: one request over verified TLS, never redirected, bounded in time and size. */

export interface HttpAnswer {
  readonly status: number
  /** Names and values in turn, as they came. */
  readonly raw: readonly string[]
  readonly body: string
}

export interface HttpRequest {
  readonly method: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

/** Throws issuer_unavailable, canceled. */
export type HttpAsk = (url: string, request: HttpRequest, signal: AbortSignal) => Promise<HttpAnswer>

/** The one value of a header; undefined when it is not there exactly once. */
export function headerOf({ raw }: HttpAnswer, name: string): string | undefined {
  const values = raw.filter((_value, at) => at % 2 === 1 && raw[at - 1]?.toLowerCase() === name)
  return values.length === 1 ? values[0] : undefined
}
