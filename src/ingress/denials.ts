/** What operators have revoked, as the verifier hears of it: SPIFFE IDs and proof keys. */
import { Fault } from '../base/fault.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Denials } from './checking.ts'

export function operatorDenials(revocations: Revocations): Denials {
  return {
    check: ({ jkt, spiffeId }) => {
      if (revocations.isEmpty) return
      const isDenied =
        (spiffeId !== undefined && revocations.find('spiffe_id', spiffeId)) ||
        (jkt !== undefined && revocations.find('jkt', jkt))
      if (isDenied) throw new Fault('token_revoked')
    },
  }
}
