/**
 * Forward authentication for proxies that ask by HTTP: `/v1/forward-auth/ROUTE` with the headers of the request. The
 * proxy is the asking workload; what it sets is believed because it is attested and listed, and it has to set every
 * header that is named here on every request, so that none passes from outside.
 *
 * nginx (`?peer=` says which of the last two it sets; without it they are not read):
 *
 *     location = /_holdfast {
 *       internal;
 *       proxy_pass http://unix:/run/holdfast/public/verifier.sock:/v1/forward-auth/orders?peer=certificate,address;
 *       proxy_pass_request_body off;
 *       proxy_set_header Host localhost;
 *       proxy_set_header Content-Length "";
 *       proxy_set_header X-Original-Method $request_method;
 *       proxy_set_header X-Original-URI $request_uri;
 *       proxy_set_header X-Original-Certificate $ssl_client_escaped_cert;
 *       proxy_set_header X-Original-Address $remote_addr;
 *     }
 *     location /orders/ {
 *       auth_request /_holdfast;
 *       auth_request_set $holdfast_caller $upstream_http_x_holdfast_caller;
 *       auth_request_set $holdfast_subject $upstream_http_x_holdfast_subject;
 *       auth_request_set $holdfast_scopes $upstream_http_x_holdfast_scopes;
 *       auth_request_set $holdfast_handle $upstream_http_x_holdfast_handle;
 *       auth_request_set $holdfast_nonce $upstream_http_dpop_nonce;
 *       add_header DPoP-Nonce $holdfast_nonce always;
 *       proxy_set_header X-Holdfast-Caller $holdfast_caller;
 *       proxy_set_header X-Holdfast-Subject $holdfast_subject;
 *       proxy_set_header X-Holdfast-Scopes $holdfast_scopes;
 *       proxy_set_header X-Holdfast-Handle $holdfast_handle;
 *       proxy_set_header Authorization "";
 *       proxy_set_header DPoP "";
 *       proxy_pass http://app;
 *     }
 *
 * Traefik: `?proxy=traefik`, by X-Forwarded-Method and X-Forwarded-Uri, which it sets itself; nothing is known of its
 * peer. `authResponseHeaders` has to list the four X-Holdfast headers, so that copies from outside are removed.
 */
import { X509Certificate } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import type { HeadRequest, Reply } from '../serve/http.ts'
import { claimHeaders } from './answer.ts'
import { askerOf } from './asker.ts'
import { only, type RawHeaders } from './inbound.ts'
import { parseQuestion, parseRoute, type Question } from './question.ts'
import type { Verifier } from './verifier.ts'

export const FORWARD_AUTH = '/v1/forward-auth/'

const PARAMETERS: ReadonlySet<string> = new Set(['proxy', 'peer'])
/** Set by the proxy, not by whoever sent the request: no part of it. */
const OWN = /^(?:x-original-(?:method|uri|certificate|address)|host|content-length|connection)$/i

/** 200 with claims, or a refusal without a body: Traefik hands the body on. */
export async function forwardAuth(verifier: Verifier, request: HeadRequest): Promise<Reply> {
  const asker = askerOf(request.caller)
  const dialect = dialectIn(request.query)
  const question = await verifier.read(asker, () => questionIn(request, dialect))
  const outcome = await verifier.ask(asker, question)
  if (!('answer' in outcome)) {
    const { status, headers } = outcome.challenge
    return { status: statusFor(status), headers }
  }
  const { answer } = outcome
  const nonce = answer.nonce === undefined ? {} : { 'dpop-nonce': answer.nonce }
  return { status: 200, headers: { ...claimHeaders(answer), ...nonce, 'cache-control': 'no-store' } }
}

/** nginx knows 401 and 403, and makes an error of its own of all else: right for what is the agent's fault only. */
function statusFor(status: number): number {
  return status === 401 || status >= 500 ? status : 403
}

function questionIn({ path, headers }: HeadRequest, { isTraefik, peer }: ProxyDialect): Question {
  const [method, target] = isTraefik
    ? (['x-forwarded-method', 'x-forwarded-uri'] as const)
    : (['x-original-method', 'x-original-uri'] as const)
  return parseQuestion({
    route: parseRoute(path),
    method: only(headers, method),
    path: only(headers, target),
    headers: pairsOf(headers).filter(([name]) => !OWN.test(name)),
    peer: { ...certificateOf(headers, peer), ...addressOf(headers, peer) },
  })
}

interface ProxyDialect {
  readonly isTraefik: boolean
  readonly peer: ReadonlySet<string>
}

/** Which proxy asks is in the URL that its configuration has, never in a header, which may be the caller's. */
function dialectIn(query: URLSearchParams): ProxyDialect {
  const unknown = [...query.keys()].find((name) => !PARAMETERS.has(name) || query.getAll(name).length > 1)
  if (unknown !== undefined)
    throw new Fault('invalid_request', 'the query is not ?proxy= and ?peer= once each')
  const proxy = query.get('proxy') ?? 'nginx'
  const peer = new Set((query.get('peer') ?? '').split(',').filter((one) => one !== ''))
  const isKnown = [...peer].every((one) => one === 'certificate' || one === 'address')
  if ((proxy !== 'nginx' && proxy !== 'traefik') || !isKnown || (proxy === 'traefik' && peer.size > 0))
    throw new Fault(
      'invalid_request',
      'proxy is nginx or traefik; peer, of nginx, is certificate and address',
    )
  return { isTraefik: proxy === 'traefik', peer }
}

function pairsOf(headers: RawHeaders): readonly (readonly [string, string])[] {
  return headers.flatMap((name, at) => (at % 2 === 0 ? [[name, headers[at + 1] ?? ''] as const] : []))
}

/** nginx leaves the header out where there is no certificate. */
function certificateOf(headers: RawHeaders, peer: ReadonlySet<string>): { certificate?: Buffer } {
  const text = peer.has('certificate') ? only(headers, 'x-original-certificate') : undefined
  if (text === undefined || text === '') return {}
  try {
    return { certificate: new X509Certificate(decodeURIComponent(text)).raw }
  } catch {
    throw new Fault('invalid_request', 'X-Original-Certificate is no certificate in URL-encoded PEM')
  }
}

function addressOf(headers: RawHeaders, peer: ReadonlySet<string>): { address?: string } {
  const address = peer.has('address') ? only(headers, 'x-original-address') : undefined
  return address === undefined ? {} : { address }
}
