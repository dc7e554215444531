/** The policy of `--dev` and `init`: one file a layer, for the users of one machine and two harmless targets. */
import { readFileSync } from 'node:fs'
import type { TrustDomain } from '../spiffe/id.ts'
import type { PolicyText } from './statements.ts'

export interface DevPolicyOptions {
  readonly trustDomain: TrustDomain
  /** The users who get an identity. */
  readonly uids: readonly number[]
  /** Login names; those of /etc/passwd when absent. */
  readonly nameOf?: (uid: number) => string | undefined
}

/** The four files, named without a directory; they load as they stand. */
export function devPolicy(options: DevPolicyOptions): readonly PolicyText[] {
  const names = options.nameOf ?? loginNames()
  const users = options.uids.map((uid) => ({ uid, id: devSpiffeId(options.trustDomain, uid, names(uid)) }))
  return [
    { file: 'identity.yaml', text: identityText(users) },
    { file: 'platform.yaml', text: PLATFORM },
    { file: 'application.yaml', text: applicationText(options.trustDomain, users) },
    { file: 'security.yaml', text: SECURITY },
  ]
}

interface DevUser {
  readonly uid: number
  readonly id: string
}

/** `spiffe://dev.holdfast.test/user/ann`; a name that is no path segment gives way to the uid. */
export function devSpiffeId(trustDomain: TrustDomain, uid: number, name?: string): string {
  const isSegment = name !== undefined && /^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,64}$/.test(name)
  return `spiffe://${trustDomain}/user/${isSegment ? name : `uid-${uid}`}`
}

/** Two names of one uid are one user: the first line counts, as for getpwuid(3). */
function loginNames(): (uid: number) => string | undefined {
  const names = new Map<number, string>()
  try {
    for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
      const [name = '', , uid] = line.split(':')
      if (uid !== undefined && !names.has(Number(uid))) names.set(Number(uid), name)
    }
  } catch {
    // Without the file there are no names, and uids will do.
  }
  return (uid) => names.get(uid)
}

function identityText(users: readonly DevUser[]): string {
  const entries = users.map(
    (user) => `  - spiffe_id: ${user.id}
    selectors: [unix:uid:${user.uid}]
    deliver: { x509: true, jwt: true, wit: true }
`,
  )
  return `# Who is whom, how requests are bound, and what an application may hold.
layer: identity
entries:
${entries.join('')}targets:
  - name: example
    server: none
    custody: token
    hash_only: true
    tokenless: true
    binding: [dpop, wpt]
  - name: loopback
    server: none
    custody: token
    hash_only: true
    tokenless: true
    binding: [dpop, wpt]
`
}

const PLATFORM = `# Where the targets are.
layer: platform
targets:
  - name: example
    origins: ["https://api.example.test"]
  - name: loopback
    origins:
      - http://localhost:*
      - https://localhost:*
      - http://127.0.0.1:*
      - https://127.0.0.1:*
      - http://[::1]:*
      - https://[::1]:*
`

function applicationText(trustDomain: TrustDomain, users: readonly DevUser[]): string {
  const [first] = users
  const test = `tests:
  - name: a user may ask for a proof for the example API
    spiffe_id: ${first?.id}
    method: GET
    url: https://api.example.test/orders
    token: none
    expect: allow
  - name: nobody may ask for a proof for another host
    spiffe_id: ${first?.id}
    method: GET
    url: https://other.example.test/
    expect: deny
    reason: target_unknown
`
  return `# Who may call what.
layer: application
targets:
  - name: example
    grants:
      - callers: ["spiffe://${trustDomain}/user/**"]
        methods: ["*"]
        paths: ["/**"]
  - name: loopback
    grants:
      - callers: ["spiffe://${trustDomain}/user/**"]
        methods: ["*"]
        paths: ["/**"]
${first ? test : ''}`
}

const SECURITY = `# What is denied whatever the other files say, and until when refusals are only watched.
layer: security
deny: []
`
