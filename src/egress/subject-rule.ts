/**
 * Which subject tokens are exchanged: those of the issuers that policy names, and of these only what is meant for this
 * workload. The server verifies the token; here it is kept from servers and uses that it was not made for.
 */
import { Fault } from '../base/fault.ts'
import type { Entry } from '../policy/entry.ts'
import type { ExchangeRule, Server, Target, TargetIdentity } from '../policy/grant.ts'
import type { Subject } from './subjects.ts'

export interface SubjectUse {
  readonly rule: ExchangeRule
  /** The server that is to exchange it. */
  readonly server: Server
  readonly entry: Entry
}

/** A request on somebody's behalf. */
interface ExchangeAsk {
  readonly entry: Entry
  readonly identity: TargetIdentity
  readonly target: Target
  readonly subject: Subject | undefined
}

/**
 * Throws subject_refused. An opaque token names no issuer: only the server that made it can exchange it, so that server
 * has to be one of `rule.subjects`. A token without `aud` is not known to be meant for anybody else.
 */
export function checkSubject({ claims }: Subject, use: SubjectUse): void {
  const { rule, server, entry } = use
  if (!claims && rule.subjectType === 'jwt')
    throw refused('the subject token is opaque, and the target takes JWTs')
  if (!claims && !rule.subjects.includes(server.issuer))
    throw refused(
      'the subject token is opaque, and the server that would exchange it is not in exchange.subjects',
    )
  if (!claims) return
  if (claims.issuer === undefined || !rule.subjects.includes(claims.issuer))
    throw refused('the issuer of the subject token is not in exchange.subjects')
  const names: readonly unknown[] = [
    ...rule.audiences,
    entry.spiffeId,
    server.issuer,
    server.client?.clientId ?? entry.spiffeId,
  ]
  if (claims.audience && !claims.audience.some((name) => names.includes(name)))
    throw new Fault(
      'subject_refused',
      'the subject token is meant for others: its aud does not name this workload',
      {
        action:
          'Send a token that is meant for this workload, or add what it calls this workload to exchange.audiences.',
      },
    )
}

/** Whose token is exchanged: nobody's where the target takes the workload's own. Throws subject_required, subject_refused. */
export function exchangedFor(ask: ExchangeAsk, server: Server): Subject | undefined {
  const { entry, identity, subject, target } = ask
  const { exchange } = identity
  if (!exchange) return undefined
  if (!subject) {
    if (!exchange.isRequired) return undefined
    throw new Fault('subject_required', `${target.name} wants the token of whoever called this workload`)
  }
  checkSubject(subject, { rule: exchange, server: exchange.via ?? server, entry })
  return subject
}

function refused(message: string): Fault {
  return new Fault('subject_refused', message)
}
