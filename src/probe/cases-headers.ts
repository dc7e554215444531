/** Cases about what a hop would say and anybody can write: forwarded hosts, certificates and users. */
import { answered, type ProbeCase } from './case.ts'
import type { Fields } from './send.ts'

const FOREIGN = 'attacker.invalid'
const ANYBODY = 'admin'
const HASH = '0'.repeat(64)

const FORWARDED: Fields = [
  ['X-Forwarded-Host', FOREIGN],
  ['X-Forwarded-Proto', 'https'],
  ['Forwarded', `host=${FOREIGN};proto=https`],
]
const USER: Fields = [
  'X-Forwarded-User',
  'X-Remote-User',
  'Remote-User',
  'X-Auth-Request-User',
  'X-User-Id',
].map((name) => [name, ANYBODY] as const)
const CERTIFICATE: Fields = [
  ['X-Forwarded-Client-Cert', `Hash=${HASH};Subject="CN=${ANYBODY}";URI=spiffe://example.org/${ANYBODY}`],
  ['X-SSL-Client-Verify', 'SUCCESS'],
  ['X-SSL-Client-S-DN', `CN=${ANYBODY}`],
]

export const HEADER_CASES: readonly ProbeCase[] = [
  {
    id: 'forwarded_host',
    sends: 'a proof for a host of the thief, and headers that say it is the one that was asked',
    reasons: ['proof_url'],
    owner: 'application',
    cure: 'Compare htu with the configured public origin, never with Host, Forwarded or X-Forwarded-* of the request.',
    phase: 'now',
    isAboutProof: true,
    play: async (lab) => {
      const htu = `https://${FOREIGN}${new URL(lab.options.htu).pathname}`
      return answered(await lab.attempt(() => [...lab.fields(lab.proof({ claims: { htu } })), ...FORWARDED]))
    },
  },
  {
    id: 'forged_xfcc',
    sends: 'a client certificate by header (X-Forwarded-Client-Cert), alone and with the bound token',
    reasons: [
      'token_missing',
      'proof_missing',
      'token_downgraded',
      'hop_unexpected',
      'proof_repeated',
      'invalid_request',
    ],
    owner: 'platform',
    cure: 'Let the outermost gateway remove X-Forwarded-Client-Cert and Client-Cert of callers, and the service take them only from hops that authenticate themselves.',
    phase: 'now',
    isCore: true,
    play: async (lab) =>
      answered(
        await lab.beyond([], CERTIFICATE),
        await lab.beyond(lab.fields(undefined, 'Bearer'), CERTIFICATE),
      ),
  },
  {
    id: 'forged_user',
    sends: 'a user by header (X-Forwarded-User and its like), alone',
    reasons: ['token_missing'],
    owner: 'application',
    cure: 'Let the service take identity headers from hops that authenticate themselves only, and the gateway overwrite them.',
    phase: 'now',
    isCore: true,
    play: async (lab) => answered(await lab.beyond([], USER)),
  },
]
