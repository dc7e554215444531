/** What is wrong with transmitters of security events once all files are joined. */
import type { Problem } from '../base/problem.ts'
import type { Place } from './entry.ts'
import { type PolicyContext, placeText, type Statements } from './statements.ts'

export function transmitterConflicts(
  { transmitters }: Statements,
  { takesEvents }: PolicyContext,
): readonly Problem[] {
  const first = new Map<string, Place>()
  return transmitters.flatMap(({ issuer, place, poll }) => {
    const before = first.get(issuer)
    first.set(issuer, before ?? place)
    const messages = [
      ...(before ? [`the transmitter ${issuer} is there twice; first at ${placeText(before)}`] : []),
      ...(poll === undefined && takesEvents === false
        ? [`the transmitter ${issuer} would push, and nothing listens: set events.listen, or state poll`]
        : []),
    ]
    return messages.map((message) => ({ ...place, message }))
  })
}
