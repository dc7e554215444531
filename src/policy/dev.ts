/** The policy of `--dev` and `init`: one file a layer, for the users of one machine and two harmless targets. */
import type { TrustDomain } from '../spiffe/id.ts'
import type { PolicyText } from './statements.ts'

/** A local user who gets an identity. */
export interface DevUser {
  readonly uid: number
  /** The login name, when the machine knows one. */
  readonly name?: string | undefined
}

export interface DevPolicyOptions {
  readonly trustDomain: TrustDomain
  readonly users: readonly DevUser[]
  /** Put before the file names: where `init` writes them. */
  readonly directory?: string
}

/** The four files; they load as they stand. */
export function devPolicyFiles(options: DevPolicyOptions): readonly PolicyText[] {
  const at = options.directory === undefined ? '' : `${options.directory}/`
  return [
    { file: `${at}identity.yaml`, text: identityText(options) },
    { file: `${at}platform.yaml`, text: PLATFORM },
    { file: `${at}application.yaml`, text: applicationText(options) },
    { file: `${at}security.yaml`, text: SECURITY },
  ]
}

/** `spiffe://dev.holdfast.test/user/ann`; a name that is no path segment gives way to the uid. */
export function devSpiffeId(trustDomain: TrustDomain, user: DevUser): string {
  const isSegment = user.name !== undefined && /^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,64}$/.test(user.name)
  return `spiffe://${trustDomain}/user/${isSegment ? user.name : `uid-${user.uid}`}`
}

function identityText({ trustDomain, users }: DevPolicyOptions): string {
  const entries = users.map(
    (user) => `  - spiffe_id: ${devSpiffeId(trustDomain, user)}
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

function applicationText({ trustDomain, users }: DevPolicyOptions): string {
  const [first] = users
  const test = `tests:
  - name: a user may ask for a proof for the example API
    spiffe_id: ${first ? devSpiffeId(trustDomain, first) : ''}
    method: GET
    url: https://api.example.test/orders
    token: none
    expect: allow
  - name: nobody may ask for a proof for another host
    spiffe_id: ${first ? devSpiffeId(trustDomain, first) : ''}
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
