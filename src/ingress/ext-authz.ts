/**
 * Envoy's external authorization (`envoy.service.auth.v3.Authorization`), for an Envoy that is itself the asking workload.
 * The filter needs `include_peer_certificate: true` where callers or hops are known by certificate; `encode_raw_headers`
 * is understood. `context_extensions: {route: NAME}` names the route. Envoy sends no `workload.spiffe.io`.
 *
 * With `with_request_body: {max_request_bytes: N, pack_as_bytes: true}` the body of a signed request is compared with the
 * digest that its signature covers, without `pack_as_bytes` if it is UTF-8; `context_extensions: {body: required}` refuses one whose body is not shown whole.
 */
import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { Fault } from '../base/fault.ts'
import type { Members } from '../base/members.ts'
import type { Caller } from '../serve/caller.ts'
import { memberOf, rawLines, valueOptions } from '../serve/envoy-message.ts'
import type { Handlers } from '../serve/grpc.ts'
import type { Message } from '../serve/messages.ts'
import { GRPC } from '../serve/status.ts'
import { type Answer, CLAIM_HEADERS, claimHeaders } from './answer.ts'
import { askerOf } from './asker.ts'
import type { Challenge } from './challenge.ts'
import { parseQuestion, type Question } from './question.ts'
import type { AskedBody } from './signed-body.ts'
import type { Verifier } from './verifier.ts'

/** Envoy joins lines of one name by commas: none of these has one in it. */
const CREDENTIALS: ReadonlySet<string> = new Set([
  'authorization',
  'dpop',
  'workload-identity-token',
  'workload-proof-token',
  'txn-token',
  'client-cert',
])
/** What the application has no use for once it is verified. */
const SPENT = ['authorization', 'dpop', 'workload-identity-token', 'workload-proof-token'] as const
/** Set by Envoy with each body that it shows. */
const PARTIAL = 'x-envoy-auth-partial-body'
const PEM_LIMIT = 96 * 1024

type Lines = readonly (readonly [string, string])[]

/** The methods of the service. */
export function extAuthzHandlers(verifier: Verifier): Handlers {
  return { Check: { unary: (caller, request) => check(verifier, caller, request) } }
}

/**
 * Every refusal is an answer: an error of the call itself is what `failure_mode_allow` lets pass. Only what keeps the
 * agent from answering at all is one.
 */
async function check(verifier: Verifier, caller: Caller, request: Message): Promise<Message> {
  try {
    const asker = askerOf(caller)
    const outcome = await verifier.ask(asker, await verifier.read(asker, () => questionIn(request)))
    return 'answer' in outcome ? allowed(outcome.answer) : denied(outcome.challenge)
  } catch (caught) {
    const { reason } = Fault.from(caught)
    return denied({ status: reason === 'invalid_request' ? 400 : 403, headers: {} })
  }
}

function questionIn(request: Message): Question {
  const attributes = memberOf(request, 'attributes')
  const http = memberOf(memberOf(attributes, 'request'), 'http')
  const source = memberOf(attributes, 'source')
  const { body, route } = memberOf(attributes, 'context_extensions')
  // An operator's slip: with another word all would pass that was to be compared.
  if (body !== undefined && body !== 'required')
    throw new Fault('invalid_request', 'body in context_extensions is not "required"')
  const { address } = memberOf(memberOf(source, 'address'), 'socket_address')
  const certificate = certificateIn(source['certificate'])
  const lines = headersIn(http)
  const question = parseQuestion({
    ...(route === undefined ? {} : { route }),
    method: http['method'],
    path: http['path'],
    headers: lines,
    peer: {
      ...(certificate ? { certificate } : {}),
      ...(typeof address === 'string' && isIP(address) !== 0 ? { address } : {}),
    },
  })
  return { ...question, body: { ...bodyIn(http, lines), isRequired: body === 'required' } }
}

/** Envoy says itself whether it is all of the body. */
function bodyIn(http: Members, lines: Lines): Pick<AskedBody, 'whole' | 'hasOctets'> {
  // The last one is Envoy's: with encode_raw_headers it comes after what the caller sent.
  const lastOf = (wanted: string) => lines.filter(([name]) => name.toLowerCase() === wanted).at(-1)?.[1]
  const body = bytesIn(http['raw_body']) ?? bytesIn(http['body']) ?? Buffer.alloc(0)
  const length = lastOf('content-length')
  const isWhole = lastOf(PARTIAL)?.toLowerCase() === 'false'
  const hasOctets = body.length > 0
  // Where Envoy is not asked to show bodies, a caller may say this header: then none is there.
  const isShown = hasOctets || length === '0'
  const isSaidLength = length === undefined || Number(length) === body.length
  return { whole: isWhole && isShown && isSaidLength ? body : undefined, hasOctets }
}

const bytesIn = (shown: unknown) => (Buffer.isBuffer(shown) && shown.length > 0 ? shown : undefined)

/** The raw ones where Envoy sends them; pseudo headers are no headers. Some names it joins even then, Authorization too. */
function headersIn(http: Members): Lines {
  const lines =
    rawLines(http['header_map']) ??
    Object.entries(memberOf(http, 'headers')).map(([name, value]) => [name, String(value)] as const)
  return lines.flatMap(([name, value]) => linesOf(name, value)).filter(([name]) => !name.startsWith(':'))
}

function linesOf(name: string, value: string): readonly (readonly [string, string])[] {
  if (!CREDENTIALS.has(name.toLowerCase())) return [[name, value]]
  return value.split(',').map((part) => [name, part.trim()] as const)
}

/** PEM, URL-encoded; throws invalid_request for what cannot be read, since it must not pass as none. */
function certificateIn(text: unknown): Buffer | undefined {
  if (typeof text !== 'string' || text === '') return undefined
  try {
    if (text.length <= PEM_LIMIT) return new X509Certificate(decodeURIComponent(text)).raw
  } catch {
    // Said below.
  }
  throw new Fault('invalid_request', 'source.certificate is no certificate in URL-encoded PEM')
}

/** Claims over whatever came in under their names; credentials go no further. */
function allowed(answer: Answer): Message {
  const claims = claimHeaders(answer)
  const forged = CLAIM_HEADERS.filter((name) => claims[name] === undefined)
  const nonce = answer.nonce === undefined ? {} : { 'dpop-nonce': answer.nonce }
  return {
    status: { code: 0 },
    ok_response: {
      headers: valueOptions(claims),
      headers_to_remove: [...SPENT, ...forged],
      response_headers_to_add: valueOptions(nonce),
    },
  }
}

function denied({ status, headers }: Challenge): Message {
  return {
    status: { code: GRPC.PERMISSION_DENIED },
    denied_response: { status: { code: status }, headers: valueOptions(headers) },
  }
}
