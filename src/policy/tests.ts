/** Runs the tests that stand beside the rules: each asks one question and says what the answer has to be. */
import { Fault } from '../base/fault.ts'
import { canonicalUrl } from '../proof/target.ts'
import type { PolicyTest, RuleBook } from './book.ts'
import { decide } from './decide.ts'
import type { Entry, Place } from './entry.ts'
import { demandsOf } from './explain.ts'
import { placeText } from './statements.ts'

export interface PolicyTestResult {
  readonly name: string
  readonly place: Place
  readonly passed: boolean
  /** What was answered. */
  readonly message: string
}

/** The results of all tests of `book`, in their order. */
export function runPolicyTests(book: RuleBook): readonly PolicyTestResult[] {
  return book.tests.map((test) => {
    const answer = answerOf(book, test)
    return { name: test.name, place: test.place, ...judge(test, answer) }
  })
}

interface Answer {
  readonly allowed: boolean
  readonly reason: string | undefined
  readonly rule: Place | undefined
  readonly ruleName: string
  readonly message: string
}

function answerOf(book: RuleBook, test: PolicyTest): Answer {
  const refused = (reason: string, message: string): Answer => ({
    allowed: false,
    reason,
    rule: undefined,
    ruleName: '',
    message: `${reason}: ${message}`,
  })
  const isMeant = (each: Entry) => each.spiffeId === test.spiffeId
  const entry = book.entriesFor(new Set(test.selectors)).find(isMeant) ?? book.entries.find(isMeant)
  if (!entry) return refused('no_identity', `no entry gives ${test.spiffeId}`)
  try {
    return askBook(book, test, entry)
  } catch (error) {
    const fault = Fault.from(error)
    return refused(fault.reason, fault.message)
  }
}

function askBook(book: RuleBook, test: PolicyTest, entry: Entry): Answer {
  const { kind, door, spiffeId, method, token } = test
  const selectors = test.selectors.length > 0 ? test.selectors : entry.selectors
  const url = canonicalUrl(test.url)
  const context = test.context ? { context: test.context } : {}
  const decision = decide(book, { kind, door, spiffeId, entry, method, url, token, selectors, ...context })
  if (!decision.allowed) {
    const { reason, message, nearest: rule } = decision
    return { allowed: false, reason, rule, ruleName: '', message: `${reason}: ${message}` }
  }
  const { name: ruleName } = decision.grant
  const by = ruleName === '' ? placeText(decision.rule) : `${ruleName}, ${placeText(decision.rule)}`
  const demands = demandsOf(decision.grant)
  const message = [`allowed by ${by}`, ...demands].join('; also wants ')
  return { allowed: true, reason: undefined, rule: decision.rule, ruleName, message }
}

function judge(test: PolicyTest, answer: Answer): Pick<PolicyTestResult, 'passed' | 'message'> {
  if (answer.allowed !== (test.expect === 'allow')) {
    return { passed: false, message: `wanted ${test.expect}; ${answer.message}` }
  }
  if (test.reason !== undefined && test.reason !== answer.reason) {
    return { passed: false, message: `wanted the reason ${test.reason}; ${answer.message}` }
  }
  if (test.rule !== undefined && test.rule !== answer.ruleName) {
    return { passed: false, message: `wanted the rule ${test.rule}; ${answer.message}` }
  }
  return { passed: true, message: answer.message }
}
