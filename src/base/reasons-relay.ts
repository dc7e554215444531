/** The reasons of those who relay to the agent: holdfast sidecar and holdfast exec. */
import type { ReasonFacts } from './reasons.ts'

export const RELAY_REASONS = {
  secret_refused: {
    owner: 'caller',
    cause: 'the request does not show the secret of this sidecar',
    cure: 'Send Holdfast-Secret, exactly once, with the content of the file that --secret-file of the sidecar names.',
  },
  session_foreign: {
    owner: 'caller',
    cause: 'the caller is no process of the command that this socket was made for',
    cure: 'Call from the command of `holdfast exec`, or from a process below it that has not left it.',
  },
  session_narrowed: {
    owner: 'caller',
    cause: 'holdfast exec was told to let other requests through only',
    cure: 'Name the target, and the method where one is named, in another --only of `holdfast exec`.',
  },
} as const satisfies Readonly<Record<string, ReasonFacts>>
