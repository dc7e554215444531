/** Questions about requests as gRPC (`holdfast.v1.VerifyService`) and as JSON, on the verifier's socket. */
import type { Caller } from '../serve/caller.ts'
import type { Handlers } from '../serve/grpc.ts'
import type { JsonAnswer, Routes } from '../serve/http.ts'
import type { Message } from '../serve/messages.ts'
import type { Members } from '../sign/ask.ts'
import type { Answer } from './answer.ts'
import { askerOf } from './asker.ts'
import { parseQuestion } from './question.ts'
import type { Outcome, Verifier } from './verifier.ts'

/** The methods of `holdfast.v1.VerifyService`. */
export function verifyHandlers(verifier: Verifier): Handlers {
  return {
    VerifyRequest: {
      unary: async (caller, request) => messageOf(await asked(verifier, caller, request)),
    },
  }
}

/** The same as JSON: 200 with the answer, or the status that goes outside, with `error` and `challenge`. */
export function verifyRoutes(verifier: Verifier): Routes {
  return {
    'POST /v1/verify': async ({ caller, body }) => jsonOf(await asked(verifier, caller, body)),
  }
}

function asked(verifier: Verifier, caller: Caller, members: Members): Promise<Outcome> {
  return verifier.ask(askerOf(caller), parseQuestion(members))
}

/** Never a 2xx for a refusal: a service that looks at the status alone still refuses. */
function jsonOf(outcome: Outcome): JsonAnswer {
  if ('answer' in outcome) return outcome.answer
  const { challenge, fault } = outcome
  return { reply: { status: challenge.status, headers: {}, body: { error: fault, challenge } } }
}

function transactionOf(transaction: Answer['transaction']): Message {
  if (!transaction) return {}
  const { tctx, ...rest } = transaction
  return { transaction: { ...rest, ...(tctx ? { tctx: JSON.stringify(tctx) } : {}) } }
}

function messageOf(outcome: Outcome): Message {
  if ('answer' in outcome) {
    const { answer } = outcome
    const { claims, transaction, ...rest } = answer
    return { verified: { ...rest, claims: JSON.stringify(claims), ...transactionOf(transaction) } }
  }
  const { reason, message, action, owner } = outcome.fault
  return { refused: { error: { reason, message, action, owner }, challenge: outcome.challenge } }
}
