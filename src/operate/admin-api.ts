/** The admin door: JSON over HTTP on a socket that only the agent's own uid and root may open. */
import type { Attestation } from '../attest/identify.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import { type Contacts, explainRequest } from '../policy/explain.ts'
import type { JsonAnswer, JsonRequest, Route, Routes } from '../serve/http.ts'
import type { Audit, AuditFacts } from '../telemetry/audit.ts'
import type { Log, LogLevel } from '../telemetry/log.ts'
import { type ApproveOptions, approveOne, listApprovals } from './approve.ts'
import { type RegistrationOptions, registrationAt } from './client-registration.ts'
import { explainPod } from './explain-pod.ts'
import { parseRevoke, type RevokeOptions, revoke } from './revoke.ts'
import type { AgentStatus } from './status.ts'

export interface AdminApiOptions extends ApproveOptions {
  readonly status: () => AgentStatus
  readonly revoke: RevokeOptions
  readonly attestation: Attestation
  readonly book: Live<RuleBook>
  readonly log: Log
  readonly contacts: Contacts
  /** Facts for client registration, beside the book. */
  readonly registration: Omit<RegistrationOptions, 'book'>
  /** Reads configuration and policy again; throws what is wrong with them. */
  readonly reload: () => Promise<void>
  /** Ends the agent gently. */
  readonly drain: () => void
}

type Members = Readonly<Record<string, unknown>>

/** The routes of the admin socket; each call is audited. */
export function adminApi(options: AdminApiOptions): Routes {
  return {
    'GET /v1/status': () => options.status(),
    'GET /v1/decisions': () => ({ lines: (send, signal) => followDecisions(options.audit, send, signal) }),
    'GET /v1/approvals': () => listApprovals(options),
    'POST /v1/approve': (request) => approveOne(options, request),
    'POST /v1/explain': ({ body }) => explainPid(options, body),
    'POST /v1/explain-pod': ({ body }) => explainPod(options, body),
    'POST /v1/client-registration': ({ body }) => registerClient(options, body),
    'POST /v1/revoke': audited(options, 'revoke', ({ body }) => revokeOne(options, body)),
    'POST /v1/lift': audited(options, 'lift', ({ body }) => liftOne(options, body)),
    'POST /v1/reload': audited(options, 'admin', async () => {
      await options.reload()
      return { policy: options.book.get().hash }
    }),
    'POST /v1/drain': audited(options, 'admin', () => {
      options.drain()
      return { draining: true }
    }),
    'POST /v1/log-level': audited(options, 'admin', ({ body }) => setLevel(options.log, body)),
  }
}

/** An operator's deed is on record before it is answered. */
function audited(options: AdminApiOptions, event: AuditFacts['event'], route: Route): Route {
  return async (request) => {
    const { pid, uid } = request.caller
    const facts = { event, pid, uid, detail: detailOf(request) }
    try {
      const answer = await route(request)
      options.audit.append({ ...facts, allowed: true })
      options.audit.commit()
      return answer
    } catch (caught) {
      const { reason, owner } = Fault.from(caught)
      options.audit.append({ ...facts, allowed: false, reason, owner })
      throw caught
    }
  }
}

function detailOf({ body }: JsonRequest): string {
  const named = ['spiffe_id', 'jkt', 'target', 'pid', 'seconds', 'level'].filter(
    (name) => body[name] !== undefined,
  )
  return named.map((name) => `${name}=${String(body[name]).slice(0, 256)}`).join(' ')
}

async function revokeOne(options: AdminApiOptions, body: Members): Promise<JsonAnswer> {
  return revoke(options.revoke, await parseRevoke(body, (pid) => keyOf(options, pid)))
}

async function keyOf(options: AdminApiOptions, pid: number): Promise<string> {
  return (await options.attestation.describe(pid)).key
}

async function liftOne(options: AdminApiOptions, body: Members): Promise<JsonAnswer> {
  const { kind, value } = await parseRevoke(body, (pid) => keyOf(options, pid))
  if (!options.revoke.revocations.lift(kind, value))
    throw new Fault('not_found', 'no such revocation is in force', {
      action: 'See `holdfast status` for those that are.',
    })
  options.revoke.tell()
  return { lifted: { kind, value } }
}

async function explainPid(options: AdminApiOptions, body: Members): Promise<JsonAnswer> {
  const { pid } = body
  if (!Number.isSafeInteger(pid)) throw new Fault('invalid_request', 'pid is missing or not an integer')
  const { selectors, notes } = await options.attestation.describe(pid as number)
  const found = explainRequest(options.book.get(), selectors, body, options.contacts)
  return notes.length > 0 ? { ...found, notes } : found
}

function registerClient({ book, registration }: AdminApiOptions, { server }: Members): JsonAnswer {
  if (typeof server !== 'string') throw new Fault('invalid_request', 'server is missing or not a name')
  return registrationAt({ ...registration, book: book.get() }, server)
}

const LEVELS: ReadonlySet<unknown> = new Set(['debug', 'info', 'warn', 'error'])

function setLevel(log: Log, { level }: Members): JsonAnswer {
  if (!LEVELS.has(level)) throw new Fault('invalid_request', 'level is one of debug, info, warn, error')
  log.setLevel(level as LogLevel)
  return { level }
}

function followDecisions(audit: Audit, send: (line: object) => void, signal: AbortSignal): void {
  const stop = audit.watch(send)
  signal.addEventListener('abort', stop, { once: true })
}
