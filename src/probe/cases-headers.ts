/** Cases about what a hop would say and anybody can write: forwarded hosts, certificates and users. */
import { parseJws } from '../spiffe/jws.ts'
import { answered, type ProbeCase } from './case.ts'
import type { Lab } from './lab.ts'
import type { Fields } from './send.ts'

const FOREIGN = 'attacker.invalid'
const ANYBODY = 'admin'
const HASH = '0'.repeat(64)

const FORWARDED: Fields = [
  ['X-Forwarded-Host', FOREIGN],
  ['X-Forwarded-Proto', 'https'],
  ['Forwarded', `host=${FOREIGN};proto=https`],
]
/** The last two are what the verifier itself has proxies set (forward-auth, ext_authz). */
const USER = [
  'X-Forwarded-User',
  'X-Remote-User',
  'Remote-User',
  'X-Auth-Request-User',
  'X-User-Id',
  'X-Holdfast-Caller',
  'X-Holdfast-Subject',
] as const
const userFields = (name: string): Fields => USER.map((field) => [field, name] as const)

const CERTIFICATE_BYTES = 600
/** A name in a certificate that nobody has made: what is read of it is what the headers say. */
function certificateFields(name: string): Fields {
  const uri = name.startsWith('spiffe://') ? name : `spiffe://example.org/${name}`
  return [
    ['X-Forwarded-Client-Cert', `Hash=${HASH};Subject="CN=${name}";URI=${uri}`],
    ['Client-Cert', `:${Buffer.alloc(CERTIFICATE_BYTES).toString('base64')}:`],
    ['X-SSL-Client-Verify', 'SUCCESS'],
    ['X-SSL-Client-S-DN', `CN=${name}`],
  ]
}

const NAME = /^[!#-+\--:<-[\]-~]{1,256}$/

/** Somebody, and whom the token of the lab names: a service that knows its callers refuses the first in any case. */
function namesAt({ bound }: Lab): readonly string[] {
  const { sub, client_id: client } = parseJws(bound.token)?.payload ?? {}
  const known = [sub, client].filter((name) => typeof name === 'string' && NAME.test(name))
  return [...new Set([ANYBODY, ...(known as readonly string[])])]
}

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
        ...(await lab.beyond([], ...namesAt(lab).map(certificateFields))),
        ...(await lab.beyond(lab.fields(undefined, 'Bearer'), certificateFields(ANYBODY))),
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
    play: async (lab) => answered(...(await lab.beyond([], ...namesAt(lab).map(userFields)))),
  },
]
