/** An authority that vouches for the keys that an egress door signs with: `wit` of `startEgress`, and the bundle to verify by. */
import { systemClock } from '../../src/base/clock.ts'
import { embeddedAuthority } from '../../src/issue/embedded.ts'
import { Svids } from '../../src/issue/svids.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'

export function makeWitAuthority() {
  const authority = embeddedAuthority({
    trustDomain: parseTrustDomain('example.org'),
    clock: systemClock,
    algorithm: 'ES256',
    intermediate: false,
    caTtl: 86_400,
    keyTtl: 86_400,
    wit: true,
  })
  const svids = new Svids({ authority, clock: systemClock })
  return { authority, wit: svids.heldWit.bind(svids) }
}
