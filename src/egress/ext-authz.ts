/**
 * Envoy's external authorization on the workload socket: here it signs. For routes without retries, since the filter
 * runs once a request and a proof is good for one. `context_extensions` may name `target` and `spiffe_id`; what Envoy
 * says of its own callers is not read.
 */
import { Fault } from '../base/fault.ts'
import type { Members } from '../base/members.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Caller } from '../serve/caller.ts'
import { memberOf, rawLines, valueOptions } from '../serve/envoy-message.ts'
import { faultAnswer } from '../serve/fault-answer.ts'
import type { Handlers } from '../serve/grpc.ts'
import type { Message } from '../serve/messages.ts'
import { STATUS } from '../serve/status.ts'
import type { Gone } from '../sign/over.ts'
import { askOf, checkLines, type EnvoyRequest, parseChoice, spent } from './envoy-request.ts'
import { firstOf, hasBody, type RawHeaders, takesBody, withoutPseudo } from './headers.ts'
import { type RecordOptions, readOnRecord } from './record.ts'
import type { LoadReleases } from './release-api.ts'
import type { SentAsk } from './release-ask.ts'

export interface SignCheckOptions extends Omit<RecordOptions, 'clock'> {
  readonly load: LoadReleases
}

/** The methods of the service. */
export function signCheckHandlers(options: SignCheckOptions): Handlers {
  return { Check: { unary: (caller, request, gone) => check(options, caller, { request, gone }) } }
}

interface Asked {
  readonly request: Message
  readonly gone: Gone
}

/** A refusal is an answer: an error of the call itself is what `failure_mode_allow` lets pass. */
async function check(options: SignCheckOptions, caller: Caller, { request, gone }: Asked): Promise<Message> {
  try {
    const workload = caller.workload()
    const ask = await readOnRecord(options, workload, () => askIn(options.book.get(), request))
    const { headers, isTransaction } = await (await options.load()).sign(workload, ask, gone)
    const removed = spent(ask.fields, new Set(Object.keys(headers)), isTransaction)
    return {
      status: { code: 0 },
      ok_response: { headers: valueOptions(headers), headers_to_remove: removed },
    }
  } catch (caught) {
    return denied(Fault.from(caught))
  }
}

function askIn(book: RuleBook, request: Message): SentAsk {
  const attributes = memberOf(request, 'attributes')
  const { target, spiffe_id: id } = memberOf(attributes, 'context_extensions')
  const sent = requestIn(memberOf(memberOf(attributes, 'request'), 'http'))
  return askOf(book, sent, parseChoice(target, id))
}

function denied(fault: Fault): Message {
  const { body, headers, status } = faultAnswer(fault)
  const { 'Content-Length': _, ...kept } = headers
  return {
    status: { code: STATUS[fault.reason].grpc },
    denied_response: { status: { code: status }, headers: valueOptions(kept), body },
  }
}

function requestIn(http: Members): EnvoyRequest {
  const lines = linesIn(http)
  checkLines(lines.length / 2)
  const text = (name: string) => String(http[name] ?? '')
  return {
    method: text('method'),
    scheme: text('scheme'),
    authority: text('host'),
    path: text('path'),
    fields: lines,
    hasBody: mayHaveBody(text('method'), lines, http['size']),
  }
}

/**
 * Envoy asks before it has read the body, when `size` is 0 in any case: its length tells, and where Envoy does not show
 * that (`allowed_headers`), the method.
 */
function mayHaveBody(method: string, lines: RawHeaders, size: unknown): boolean {
  if (Number(size ?? 0) !== 0 || hasBody(lines)) return true
  return takesBody(method) && Number(firstOf(lines, 'content-length') ?? 1) !== 0
}

/** The raw ones where Envoy sends them; pseudo-headers are no headers. */
function linesIn(http: Members): RawHeaders {
  const lines = rawLines(http['header_map']) ?? Object.entries(memberOf(http, 'headers'))
  return withoutPseudo(lines.flatMap(([name, value]) => [name, String(value)]))
}
