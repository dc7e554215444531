/** What the replay lab plays, and what came of it: a case is one thing that a thief could try. */
import type { Owner, Reason } from '../base/fault.ts'
import type { Answer } from './answer.ts'
import type { Lab } from './lab.ts'

/** When it is played: at once, after the wait that makes proofs old, or last, since it ends a token. */
export type Phase = 'now' | 'late' | 'end'

export interface ProbeCase {
  /** Stable: reports, baselines and accepted risks name it. */
  readonly id: string
  /** What is sent, in one line. */
  readonly sends: string
  /** What the verifier says where it refuses for the right cause; only its audit tells. */
  readonly reasons: readonly Reason[]
  /** Who has to act when it is taken. */
  readonly owner: Owner
  /** What to do then. */
  readonly cure: string
  readonly phase: Phase
  /** Whether it is played at each hop and behind the gateway too. */
  readonly isCore?: boolean
  /** Whether it tells nothing by itself where no proof is wanted at all. */
  readonly isAboutProof?: boolean
  play(lab: Lab): Promise<Played>
}

/** How a case went: answers to what a thief sent, or why nothing was sent. */
export type Played =
  /** One that is taken is enough for the thief. */
  | {
      readonly kind: 'answered'
      readonly answers: readonly Answer[]
      /** What was left out, and why. */
      readonly note?: string
    }
  /** Seen without a thief's request: `isHeld` says how it is. */
  | { readonly kind: 'observed'; readonly isHeld: boolean; readonly what: string }
  | { readonly kind: 'untried'; readonly why: string }
  /** What has to be taken was not, so that a refusal of the thief would show nothing. */
  | { readonly kind: 'spoilt'; readonly why: string }
  /** The binding in use does not promise it. */
  | { readonly kind: 'uncovered'; readonly why: string }

/** Of those that tell something; there has to be one. */
export function answered(...answers: readonly (Answer | undefined)[]): Played {
  const told = answers.filter((answer) => answer !== undefined)
  return told.length > 0
    ? { kind: 'answered', answers: told }
    : untried('the same is taken without it: another case says so')
}

export function spoilt(why: string): Played {
  return { kind: 'spoilt', why }
}

export function untried(why: string): Played {
  return { kind: 'untried', why }
}
