/** What is wrong with a file that people write: where it stands, what was seen, what was wanted. */
import { Fault, printable, type Reason } from './fault.ts'

/** One thing to mend. */
export interface Problem {
  readonly file: string
  /** From 1; 0 when it is the file as a whole. */
  readonly line: number
  readonly message: string
  /** When it is a reason of its own: `policy_writable`, `entry_too_weak`. */
  readonly reason?: Reason
}

/** More than these help nobody: the first ones usually cause the rest. */
export const PROBLEMS_LIMIT = 20

/** `file:line: message`, on one line. */
export function problemText(problem: Problem): string {
  const place = problem.line > 0 ? `${problem.file}:${problem.line}` : problem.file
  return printable(`${place}: ${problem.message}`)
}

/** The Fault of `problems`, which are not empty; `problemsOf` gives them back. */
export function problemFault(reason: Reason, problems: readonly Problem[]): Fault {
  const [first, ...more] = problems
  const text = first ? problemText(first) : 'the file is not valid'
  const rest = more.length > 0 ? ` (and ${more.length} more)` : ''
  return new Fault(first?.reason ?? reason, text + rest, { cause: problems.slice(0, PROBLEMS_LIMIT) })
}

/** The problems that a Fault of `problemFault` stands for; empty for any other. */
export function problemsOf(fault: Fault): readonly Problem[] {
  return Array.isArray(fault.cause) ? fault.cause.filter(isProblem) : []
}

function isProblem(value: unknown): value is Problem {
  return (
    typeof value === 'object' && value !== null && 'file' in value && 'line' in value && 'message' in value
  )
}
