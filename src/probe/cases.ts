/** All cases, in the order in which they are played within their phase. */
import type { Phase, ProbeCase } from './case.ts'
import { HEADER_CASES } from './cases-headers.ts'
import { PROOF_CASES } from './cases-proof.ts'
import { REPLAY_CASES } from './cases-replay.ts'
import { SESSION_CASES } from './cases-session.ts'
import { TOKEN_CASES } from './cases-token.ts'

const PHASES: readonly Phase[] = ['now', 'late', 'end']
const ALL = [...REPLAY_CASES, ...PROOF_CASES, ...TOKEN_CASES, ...HEADER_CASES, ...SESSION_CASES]

export const CASES: readonly ProbeCase[] = PHASES.flatMap((phase) =>
  ALL.filter((each) => each.phase === phase),
)

/** What is tried at every place that a request can be sent to. */
export const CORE_CASES: readonly ProbeCase[] = CASES.filter(({ isCore }) => isCore)
