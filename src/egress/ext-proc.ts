/**
 * Envoy's external processing (`envoy.service.ext_proc.v3.ExternalProcessor`), for an Envoy that is itself the asking
 * workload: each try of its upstream filter gets a token and a fresh proof, and nonces are learnt from answers. Heads
 * only; what cannot be signed is answered by an ImmediateResponse. Envoy sends no `workload.spiffe.io`.
 */
import type { Millis } from '../base/clock.ts'
import { Deadlines } from '../base/deadlines.ts'
import { Fault } from '../base/fault.ts'
import { signalOf } from '../serve/call-end.ts'
import type { Caller } from '../serve/caller.ts'
import type { Dialog, Hear } from '../serve/dialog.ts'
import { memberOf, rawLines, rawValueOptions } from '../serve/envoy-message.ts'
import { faultAnswer } from '../serve/fault-answer.ts'
import type { Handlers } from '../serve/grpc.ts'
import type { Message } from '../serve/messages.ts'
import { STATUS } from '../serve/status.ts'
import type { Gone } from '../sign/over.ts'
import { nonceIn } from './challenge.ts'
import { askOf, checkLines, type EnvoyRequest, parseChoice, spent } from './envoy-request.ts'
import { firstOf, namesOf, type RawHeaders, valuesOf, withoutPseudo } from './headers.ts'
import { type RecordOptions, readOnRecord } from './record.ts'
import type { SignedSending } from './release.ts'
import type { LoadReleases } from './release-api.ts'

export interface ExtProcOptions extends RecordOptions {
  readonly load: LoadReleases
  /** How long a stream may be open before it says anything. */
  readonly headTimeout: Millis
  /** How long an answer is waited for; it then passes unheard. */
  readonly answerTimeout: Millis
}

/** The service, and its end. */
export interface ExtProc {
  readonly handlers: Handlers
  /** Ends the streams that only wait to hear an answer: Envoy passes it on without asking, where a reset would be a 500. */
  drain(): void
}

/** Serves `envoy.service.ext_proc.v3.ExternalProcessor`. */
export function openExtProc(options: ExtProcOptions): ExtProc {
  const { answerTimeout, clock, headTimeout } = options
  const silent = new Deadlines<Dialog>(clock, headTimeout, (dialog) => dialog.end(new Fault('deadline')))
  const waiting = new Deadlines<Dialog>(clock, answerTimeout, (dialog) => dialog.end())
  const tries = { ...options, silent, waiting }
  return {
    handlers: { Process: { dialog: (caller, dialog) => openTry(tries, caller, dialog) } },
    drain: () => {
      for (const dialog of waiting.items) dialog.end()
    },
  }
}

const TARGET = 'holdfast-target'
const SPIFFE_ID = 'holdfast-spiffe-id'
/** `unheard` where the filter does not show answers (`response_header_mode: SKIP`). */
const ANSWERS = 'holdfast-answers'
const CHALLENGES_LIMIT = 4096

interface TryOptions extends ExtProcOptions {
  /** Streams that have said nothing. */
  readonly silent: Deadlines<Dialog>
  /** Those that have their headers and may tell of the answer. */
  readonly waiting: Deadlines<Dialog>
}

/** One try. States: open -> signed -> over, or open -> over. */
function openTry(options: TryOptions, caller: Caller, dialog: Dialog): Hear {
  const { silent, waiting } = options
  let signed: SignedSending | undefined
  const gone = signalOf((then) => dialog.onClose(then))
  let isClosed = false
  silent.add(dialog)
  dialog.onClose(() => {
    isClosed = true
    silent.delete(dialog)
    waiting.delete(dialog)
  })
  return async (message) => {
    silent.delete(dialog)
    waiting.delete(dialog)
    if (message['observability_mode'] === true) throw unheeded()
    const { request_headers: request, response_headers: response } = message
    if (response) {
      dialog.say({ response_headers: answered(signed, linesOf(response)) })
      return dialog.end()
    }
    if (!request || signed) return refuse(dialog, unread(message))
    try {
      checkBodyModes(message)
      const made = await signTry(options, caller, dialog, { head: request, gone })
      // Given up meanwhile: nobody would take it from those who wait.
      if (isClosed) return
      signed = made.signed
      dialog.say({ request_headers: { response: { header_mutation: made.mutation } } })
      // With the last answer: to be told of the end and to confirm it would cost a fifth of the try.
      if (made.isLast) dialog.end()
      else waiting.add(dialog)
    } catch (caught) {
      refuse(dialog, Fault.from(caught))
    }
  }
}

interface Try {
  readonly head: unknown
  readonly gone: Gone
}

async function signTry(options: ExtProcOptions, caller: Caller, dialog: Dialog, { head, gone }: Try) {
  const workload = caller.workload()
  const { ask, isLast } = await readOnRecord(options, workload, () => ({
    ask: askOf(options.book.get(), requestIn(head), parseChoice(dialog.told(TARGET), dialog.told(SPIFFE_ID))),
    isLast: areUnheard(dialog.told(ANSWERS)),
  }))
  const signed = await (await options.load()).sign(workload, ask, gone)
  const added = new Set(Object.keys(signed.headers))
  return {
    signed,
    isLast,
    mutation: {
      set_headers: rawValueOptions(signed.headers),
      remove_headers: spent(ask.fields, added, signed.isTransaction),
    },
  }
}

/** Throws invalid_request. */
function areUnheard(answers: string | undefined): boolean {
  if (answers !== undefined && answers !== 'unheard')
    throw new Fault('invalid_request', `${ANSWERS} says something else than "unheard", all that it may say`)
  return answers === 'unheard'
}

/** The nonce is the agent's; no target speaks for the agent. What asks for a retry stays, for Envoy to see. */
function answered(signed: SignedSending | undefined, lines: RawHeaders): Message {
  const fields = withoutPseudo(lines)
  signed?.hear({
    status: Number(firstOf(lines, ':status') ?? 0),
    nonce: nonceIn(fields),
    challenge: valuesOf(fields, 'www-authenticate').join(', ').slice(0, CHALLENGES_LIMIT),
  })
  const foreign = namesOf(fields, (name) => name.startsWith('holdfast-'))
  return { response: { header_mutation: { remove_headers: ['dpop-nonce', ...new Set(foreign)] } } }
}

function unheeded(): Fault {
  return new Fault('invalid_request', 'observability_mode is on: Envoy would send requests unsigned')
}

function checkBodyModes({ protocol_config: config }: Message): void {
  const { request_body_mode: up = 0, response_body_mode: down = 0 } = (config ?? {}) as Message
  if (up === 0 && down === 0) return
  throw new Fault('unimplemented', 'bodies are not read here', {
    action: 'Set request_body_mode and response_body_mode to NONE in the processing_mode of the filter.',
  })
}

function unread(message: Message): Fault {
  if (message['request_headers']) return new Fault('invalid_request', 'a stream is for one request')
  if (Object.keys(message).some((name) => name.endsWith('_body') || name.endsWith('_trailers')))
    return new Fault('unimplemented', 'bodies and trailers are not read here', {
      action: 'Set the body and trailer modes of processing_mode to NONE and SKIP.',
    })
  return new Fault('invalid_request', 'the message is of no phase that is known here')
}

/** With the status and the JSON of every door; to gRPC callers Envoy says it as a gRPC status. */
function refuse(dialog: Dialog, fault: Fault): void {
  const { body, headers, status } = faultAnswer(fault)
  const { 'Content-Length': _, ...kept } = headers
  dialog.say({
    immediate_response: {
      status: { code: status },
      headers: { set_headers: rawValueOptions(kept) },
      body: Buffer.from(body),
      grpc_status: { status: STATUS[fault.reason].grpc },
      details: `holdfast_${fault.reason}`,
    },
  })
  dialog.end()
}

function requestIn(head: unknown): EnvoyRequest {
  const { end_of_stream: isWhole } = head as Message
  const lines = linesOf(head)
  return {
    method: firstOf(lines, ':method') ?? '',
    scheme: firstOf(lines, ':scheme') ?? '',
    authority: firstOf(lines, ':authority') ?? '',
    path: firstOf(lines, ':path') ?? '',
    fields: withoutPseudo(lines),
    hasBody: isWhole !== true,
  }
}

function linesOf(head: unknown): RawHeaders {
  const lines = rawLines(memberOf(head, 'headers')) ?? []
  checkLines(lines.length)
  return lines.flat()
}
