/** What security events revoke (OpenID CAEP 1.0): which credentials of which subject, from when, and what lifts it. */
import type { Seconds } from '../base/clock.ts'
import { type EventSubject, isMembers, type Members } from './event-subject.ts'

/** One event, carried out: what was issued before it, or all, of a subject; or the end of that. */
export type EventEffect =
  | { readonly kind: 'deny'; readonly before: Seconds | undefined; readonly reason: string }
  | { readonly kind: 'allow' }

const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/'

/** The effect of the event `uri`; undefined for one that revokes nothing. */
export function effectOf(uri: string, event: unknown, issued: Seconds): EventEffect | undefined {
  if (!uri.startsWith(CAEP)) return undefined
  const members: Members = isMembers(event) ? event : {}
  switch (uri.slice(CAEP.length)) {
    case 'session-revoked':
      return { kind: 'deny', before: timeOf(members, issued), reason: 'session-revoked' }
    case 'credential-change': {
      const { change_type: change } = members
      if (change !== 'revoke' && change !== 'delete') return undefined
      return { kind: 'deny', before: timeOf(members, issued), reason: `credential-change ${change}` }
    }
    case 'device-compliance-change':
      if (members['current_status'] === 'not-compliant')
        return { kind: 'deny', before: undefined, reason: 'device-compliance-change not-compliant' }
      return members['current_status'] === 'compliant' ? { kind: 'allow' } : undefined
    default:
      return undefined
  }
}

/** CAEP 1.0 s.2: `event_timestamp`, in seconds; what was issued in that second counts as before. Never after the SET. */
function timeOf({ event_timestamp: time }: Members, issued: Seconds): Seconds {
  const seconds = typeof time === 'number' && time > 0 && time < issued ? time : issued
  return Math.floor(seconds) + 1
}

/** One rule of a subject and kind: a later event of it takes the place of an earlier one. */
export function effectKey(subject: EventSubject, { kind, ...rest }: EventEffect): string {
  const isLasting = kind === 'allow' || ('before' in rest && rest.before === undefined)
  return JSON.stringify([isLasting ? 'compliance' : 'session', subject])
}
