/** What a condition may ask about, as policy names it: the request, and what its door knows of the call. */
import type { CallContext, Question } from './decide.ts'

type Facts = Readonly<Record<string, unknown>>

const MILLIS = 1000
const DAYS = 7

/** The facts of `question`; those of its context only when it has one. */
export function factsOf(question: Question): Facts {
  const { context } = question
  return {
    method: question.method ?? '',
    path: question.url.path,
    host: question.url.host,
    spiffe_id: question.spiffeId,
    kind: question.kind,
    token: question.token,
    selectors: question.selectors,
    ...(context ? contextFacts(context) : {}),
  }
}

function contextFacts(context: CallContext): Facts {
  const { now, subject, actors, txn, calls, writes, targets, isFirstUse } = context
  const date = new Date(now * MILLIS)
  return {
    now,
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    // Date counts the days of a week from Sunday, 0; ISO 8601 from Monday, 1.
    weekday: date.getUTCDay() || DAYS,
    subject,
    actors,
    txn,
    session_calls: calls,
    session_writes: writes,
    session_targets: targets,
    first_use: isFirstUse,
  }
}
