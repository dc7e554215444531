/** A transmitter of security events, and a receiver of them: SETs that are right but for what a test changes. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, nowSeconds } from '../../src/base/clock.ts'
import type { DenialFacts } from '../../src/ingress/checking.ts'
import { Denylist } from '../../src/ingress/denylist.ts'
import { type EventNote, SecurityEvents } from '../../src/ingress/events.ts'
import { Revocations } from '../../src/policy/revocations.ts'
import type { Transmitter } from '../../src/policy/transmitter.ts'
import { ecPair } from './certificates.ts'
import { bookOf, LAYERS } from './policy.ts'
import { signToken } from './tokens.ts'

export const ISSUER = 'https://idp.example.org'
export const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/'
export const ANN = { format: 'iss_sub', iss: ISSUER, sub: 'staff-ann' }

export interface TestReceiver extends Disposable {
  readonly dir: string
  readonly denylist: Denylist
  readonly events: SecurityEvents
  readonly notes: EventNote[]
  readonly transmitter: Transmitter
  readonly bearer: string
  set(claims?: object, header?: object): string
  /** Another receiver over the same file: the same one, started again. */
  again(): SecurityEvents
  denies(facts: Partial<DenialFacts>): boolean
}

const NOBODY: DenialFacts = {
  spiffeId: undefined,
  issuer: undefined,
  subject: undefined,
  clientId: undefined,
  actor: undefined,
  tokenId: undefined,
  jkt: undefined,
  issuedAt: undefined,
}

/** A receiver whose policy gives it `staff-*` and the laptops. */
export async function openReceiver(clock: Clock, poll = ''): Promise<TestReceiver> {
  const dir = mkdtempSync(join(tmpdir(), 'hf-events-'))
  const bearer = 'a-token-of-some-length'
  writeFileSync(join(dir, 'token'), `${bearer}\n`, { mode: 0o600 })
  const security = `layer: security
transmitters:
  - issuer: ${ISSUER}
    jwks_uri: ${ISSUER}/jwks
    audience: https://verifier.example.org
    subjects:
      - { issuer: "${ISSUER}", sub: "staff-*" }
      - { spiffe_id: "spiffe://example.org/laptops/**" }
    token_file: ${join(dir, 'token')}
${poll === '' ? '' : `    poll: ${poll}\n`}`
  const book = await bookOf({ ...LAYERS, security }, { now: () => nowSeconds(clock), takesEvents: true })
  const [transmitter] = book.transmitters
  if (!transmitter) throw new Error('no transmitter')
  const key = ecPair()
  const notes: EventNote[] = []
  const openOn = (denylist: Denylist) =>
    new SecurityEvents({
      clock,
      denylist,
      transmitters: () => book.transmitters,
      keys: { find: (_server, kid) => (kid === 's1' ? key.publicKey : undefined) },
      skew: 5,
      life: () => 600,
      file: join(dir, 'events.json'),
      onEvent: (note) => notes.push(note),
    })
  const open = () => new Denylist({ clock, revocations: new Revocations(undefined, clock), limit: 1000 })
  const denylist = open()
  let current = denylist
  let jtis = 0
  return {
    dir,
    denylist,
    events: openOn(denylist),
    notes,
    transmitter,
    bearer,
    set: (claims = {}, header = {}) => {
      jtis += 1
      const now = nowSeconds(clock)
      const standard = {
        iss: ISSUER,
        aud: 'https://verifier.example.org',
        iat: now,
        jti: `set-${jtis}`,
        sub_id: ANN,
        events: { [`${CAEP}session-revoked`]: { event_timestamp: now } },
      }
      return signToken(
        { alg: 'ES256', kid: 's1', typ: 'secevent+jwt', ...header },
        { ...standard, ...claims },
        key,
      )
    },
    again: () => {
      current = open()
      return openOn(current)
    },
    denies: (facts) => {
      try {
        current.check({ ...NOBODY, ...facts })
        return false
      } catch {
        return true
      }
    },
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  }
}
