/**
 * `fetch` for resource servers: each request goes out with its token and a proof of its own (RFC 9449 s.7.1). The proof
 * is asked for first, so that a token only ever goes where policy has a target for it.
 */
import { createHash } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { Nonces } from './nonces.ts'
import type { Signer } from './signer.ts'

export interface WrapFetchOptions {
  /** The access token for the next request, bound to a key of this process (`token_type` DPoP). */
  readonly accessToken: () => string | Promise<string>
  /** Shows the agent only the token's hash: for opaque tokens, where the target says `hash_only`. */
  readonly hashOnly?: boolean
  /** What sends; the global fetch when absent. */
  readonly fetch?: typeof fetch
}

// RFC 6750 s.2.1 b64token. Headers would quote any other text in their error.
const TOKEN = /^[A-Za-z0-9._~+/-]{1,16384}=*$/
const STANDARD_METHOD = /^(?:delete|get|head|options|post|put)$/i
const UNAUTHORIZED = 401

/**
 * A `fetch` that sets `Authorization: DPoP` and `DPoP`. It learns the server's nonce from any answer, and repeats a
 * request once, with a new proof, when the server asks for a nonce (401 `use_dpop_nonce`, RFC 9449 s.9) and the body
 * can be sent again; a body that is a stream cannot, and the 401 is returned. Redirects are returned, never followed:
 * another URL needs another proof. Rejects with invalid_request when the request brings either header itself, and
 * with the agent's refusal.
 *
 * @example
 * const api = wrapFetch(signer, { accessToken: () => tokens.current() })
 * const response = await api('https://api.example.org/items', { method: 'POST', body: JSON.stringify(item) })
 */
export function wrapFetch(signer: Signer, options: WrapFetchOptions): typeof fetch {
  const nonces = new Nonces()
  return async (input, init = {}) => {
    const plan = planOf(input, init)
    const token = checkToken(await options.accessToken())
    const send = () => sendOnce(signer, options, nonces, plan, token)
    const first = await send()
    if (!first.wantsNonce || !plan.isRepeatable) return first.response
    await first.response.body?.cancel()
    return (await send()).response
  }
}

/** What is fixed over both tries. */
interface Plan {
  readonly input: string | Request
  readonly init: RequestInit
  readonly headers: Headers
  readonly method: string
  readonly url: URL
  readonly signal: AbortSignal | undefined
  readonly isRepeatable: boolean
}

/** The URL is read once: what is signed is what is sent, whatever happens to the caller's objects. */
function planOf(input: Parameters<typeof fetch>[0], init: RequestInit): Plan {
  const request = isRequest(input) ? input : undefined
  const url = parseUrl(request ? request.url : String(input))
  const headers = new Headers(init.headers ?? request?.headers)
  for (const name of ['authorization', 'dpop'])
    if (headers.has(name))
      throw new Fault('invalid_request', `the request brings its own ${name} header`, {
        action: 'Leave the header to the wrapped fetch, or send this request by the plain one.',
      })
  const method = init.method ?? request?.method ?? 'GET'
  return {
    input: request ?? url.href,
    init,
    headers,
    method: STANDARD_METHOD.test(method) ? method.toUpperCase() : method,
    url,
    signal: init.signal ?? request?.signal,
    isRepeatable: isRepeatable(init.body ?? request?.body),
  }
}

/** Errors of the parser carry the URL, and queries carry secrets. */
function parseUrl(text: string): URL {
  if (URL.canParse(text)) return new URL(text)
  throw new Fault('url_refused', 'the URL is not an absolute URL')
}

function isRequest(input: unknown): input is Request {
  return typeof input === 'object' && input !== null && !(input instanceof URL) && 'headers' in input
}

/** A stream is gone once it was sent, and so is the body of a Request. */
function isRepeatable(body: unknown): boolean {
  if (body === undefined || body === null || typeof body === 'string') return true
  return (
    body instanceof ArrayBuffer ||
    ArrayBuffer.isView(body) ||
    body instanceof URLSearchParams ||
    body instanceof FormData ||
    body instanceof Blob
  )
}

/** The token itself stays out of the message. */
function checkToken(token: string): string {
  if (typeof token === 'string' && TOKEN.test(token)) return token
  throw new Fault('token_malformed', 'the access token is not of the form it must have (RFC 6750 s.2.1)', {
    action: 'Give the token as issued.',
  })
}

interface Answer {
  readonly response: Response
  readonly wantsNonce: boolean
}

async function sendOnce(
  signer: Signer,
  { hashOnly, fetch: send = fetch }: WrapFetchOptions,
  nonces: Nonces,
  plan: Plan,
  token: string,
): Promise<Answer> {
  const { input, init, method, url, signal } = plan
  const nonce = nonces.of(url.origin)
  const shown = hashOnly ? { ath: hashOf(token) } : { accessToken: token }
  const { proof } = await signer.dpop({ method, url: url.href, nonce, ...shown }, { signal })
  const headers = new Headers(plan.headers)
  headers.set('authorization', `DPoP ${token}`)
  headers.set('dpop', proof)
  const redirect = init.redirect === 'error' ? 'error' : 'manual'
  const response = await send(input, { ...init, method, headers, redirect })
  const learnt = learn(nonces, url.origin, response)
  return { response, wantsNonce: learnt !== undefined && learnt !== nonce && asksForNonce(response) }
}

/** RFC 9449 s.4.2: base64url SHA-256 of the access token. */
function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('base64url')
}

/** Keeps the nonce of `response`; a fetch that follows redirects all the same lets no other origin choose it. */
function learn(nonces: Nonces, origin: string, { url, headers }: Response): string | undefined {
  if (url !== '' && new URL(url).origin !== origin) return undefined
  return nonces.learn(origin, headers.get('dpop-nonce'))
}

function asksForNonce({ status, headers }: Response): boolean {
  const challenge = headers.get('www-authenticate') ?? ''
  return (
    status === UNAUTHORIZED &&
    /(?:^|,)\s*DPoP(?:\s|$)/i.test(challenge) &&
    /(?:^|[\s,])error\s*=\s*"?use_dpop_nonce"?(?:[\s,]|$)/i.test(challenge)
  )
}
