/**
 * Every setting of the agent: its form, its default, a sentence. Parsing, the JSON Schema and the reference page all
 * come from this table; names are as in the file.
 */
import type { Seconds } from './base/clock.ts'
import type { RedisPlace } from './ingress/redis-place.ts'
import type { Layer } from './policy/statements.ts'
import {
  type CamelCase,
  choice,
  count,
  DAY,
  duration,
  flag,
  HOUR,
  listen,
  MINUTE,
  type Named,
  type OwnerContact,
  optional,
  preset,
  type Setting,
  texts,
} from './settings-forms.ts'
import { KUBERNETES_SETTINGS } from './settings-kubernetes.ts'
import type { TrustDomain } from './spiffe/id.ts'

export const SETTINGS = {
  trust_domain: {
    form: { kind: 'trust_domain' },
    value: 'dev.holdfast.test' as TrustDomain,
    written: '',
    says: 'The trust domain of every SPIFFE ID issued here, without scheme.',
    required: true,
  } satisfies Setting<TrustDomain>,
  dir: optional(
    'path',
    'The directory of the sockets: DIR/public/workload.sock and DIR/private/admin.sock.',
    '/run/holdfast as root, else /tmp/holdfast-UID',
  ),
  socket_aliases: texts(
    [],
    'Further names of workload.sock in its directory, for clients that expect them: socket of Istio, api.sock, spire-agent.sock.',
  ),
  log: {
    level: choice(['debug', 'info', 'warn', 'error'], 'info', 'The least grave lines that are logged.'),
  },
  hardening: {
    on_degraded: choice(
      ['refuse', 'continue'],
      'continue',
      'Whether to start when a protection of the process (locked key memory, no dumps, no debugger) is missing.',
    ),
  },
  kernel: {
    require_pidfd: flag(
      false,
      'Refuse to start where the kernel cannot hand out the pidfd of a peer (SO_PEERPIDFD, Linux 6.5).',
    ),
  },
  policy: {
    files: {
      form: { kind: 'paths' },
      value: [] as readonly string[],
      written: '[]',
      says: 'The policy files: paths, directories (their *.yaml), or patterns with * in the last part; relative to this file.',
    } satisfies Setting<readonly string[]>,
  },
  authority: {
    algorithm: choice(
      ['ES256', 'ES384', 'RS256', 'PS256'],
      'ES256',
      'The algorithm of the CA, JWT and WIT keys.',
    ),
    intermediate: flag(false, 'Sign X.509-SVIDs with an intermediate CA below the root.'),
    ca_ttl: duration(DAY, 10 * MINUTE, 3650 * DAY, 'How long a CA made by the agent lives.'),
    key_ttl: duration(DAY, 10 * MINUTE, 365 * DAY, 'How long a JWT or WIT signing key lives.'),
    nodes: {
      form: { kind: 'choice', of: ['one', 'many'] },
      value: 'one' as 'one' | 'many',
      written: 'one; many in a pod',
      says: 'Whether other nodes share the trust domain: with many, JWT-SVIDs and WIT-SVIDs need a shared key set.',
    } satisfies Setting<'one' | 'many'> as Setting<'one' | 'many'>,
    separate_roots: flag(
      false,
      'With nodes: many, start with a root made at start all the same: every node then has another, and none verifies the others.',
    ),
    jwt_keys_file: optional(
      'path',
      'A private JWK Set with the JWT and WIT keys (use: jwt-svid, wit-svid) that all nodes share. The first key of a use signs, all are published; one that is put first has to be known for five minutes before it signs.',
    ),
    ca: {
      certificate_file: optional('path', 'A CA certificate to sign with (PEM) instead of one made at start.'),
      key_file: optional('path', 'The key of that CA (PEM); no other user may be able to read it.'),
      chain_file: optional(
        'path',
        'Certificates from that CA up to its root (PEM), when it is not the root.',
      ),
    },
  },
  svid: {
    x509_ttl: duration(HOUR, MINUTE, 7 * DAY, 'The life of an X.509-SVID, where the entry says nothing.'),
    jwt_ttl: duration(5 * MINUTE, 30, DAY, 'The life of a JWT-SVID, where the entry says nothing.'),
  },
  sds: {
    rootca: choice(
      ['own', 'all'],
      'own',
      'What ROOTCA is to proxies: the bundle of their own trust domain, or all bundles, as Istio needs it to federate. An entry may say otherwise.',
    ),
    validator: choice(
      ['spiffe', 'trusted_ca'],
      'spiffe',
      'How proxies verify peers: each by the bundle of its own trust domain, or by one pool of the own trust domain only, for proxies without the SPIFFE validator. An entry may say otherwise.',
    ),
    waiting_per_uid: count(
      1024,
      1,
      100_000,
      'Streams of one uid, or of one pod, that may wait for an entry; limits.calls bounds all.',
    ),
    waiting_time: duration(10 * MINUTE, 1, DAY, 'How long a stream may wait for an entry.'),
  },
  federation: {
    directory: optional(
      'path',
      'The bundles of other trust domains: a directory of TRUST-DOMAIN.json files (SPIFFE bundle documents), read again when one changes.',
    ),
  },
  wit: choice(['off', 'on'], 'off', 'Whether WIT-SVIDs and the proofs made with them (WPT) are served.'),
  keys: {
    rotation: duration(HOUR, MINUTE, 7 * DAY, 'How long a proof key signs before it is replaced.'),
  },
  limits: {
    connections_per_uid: count(512, 1, 100_000, 'Open connections of one uid, or of one pod.'),
    connections: count(8192, 1, 1_000_000, 'Open connections of all callers.'),
    calls_per_uid: count(
      4096,
      1,
      1_000_000,
      'Open gRPC calls, HTTP/2 and JSON requests of one uid, or of one pod, streams included, over all its connections.',
    ),
    calls: count(16_384, 1, 10_000_000, 'Open gRPC calls, HTTP/2 and JSON requests of all callers.'),
    streams_per_connection: count(100, 1, 10_000, 'Calls at a time on one connection.'),
    header_timeout: duration(
      5,
      1,
      MINUTE,
      'How long a caller may take to send the head of its first request.',
    ),
    proofs_per_second: count(10_000, 1, 1_000_000, 'Proofs one instance may ask for in a second.'),
  },
  egress: {
    socket: choice(
      ['off', 'on'],
      'off',
      'Whether DIR/public/egress.sock is served, where the agent makes requests for applications; on with --dev.',
    ),
    buffer_kib: count(
      64,
      0,
      16_384,
      'The longest body that is kept for a second try with a nonce, in KiB; a longer one is sent once.',
    ),
    connect_timeout: duration(5, 1, 5 * MINUTE, 'How long connecting to a target may take, TLS included.'),
    response_timeout: duration(
      MINUTE,
      1,
      DAY,
      'How long a target may take to begin its answer once the request has been sent.',
    ),
    idle_timeout: duration(
      10 * MINUTE,
      1,
      DAY,
      'How long an answer, a body or a WebSocket may stand still before it is closed.',
    ),
    connections_per_target: count(64, 1, 10_000, 'Requests that one instance may have open at one target.'),
    dns_ttl_max: duration(MINUTE, 1, HOUR, 'How long an address that a name resolved to is used at most.'),
  },
  tokens: {
    renew_before: duration(
      MINUTE,
      1,
      HOUR,
      'How long before its end a token is renewed at the latest; a third of its life before it, when that is less; up to a sixth of its life earlier, so that renewals are spread.',
    ),
    timeout: duration(10, 1, 2 * MINUTE, 'How long one request to an authorization server may take.'),
    clock_skew: duration(
      30,
      1,
      5 * MINUTE,
      'How far the clock of an authorization server may be off from the one here.',
    ),
    kept: count(
      20_000,
      1,
      1_000_000,
      'Tokens that are kept in memory at a time; no identity has more of them than are left for all others.',
    ),
    client_attestation: choice(
      ['off', 'on'],
      'off',
      'Whether clients may show a WIT-SVID over the key of their DPoP proofs (attest_jwt_client_auth_dpop, a draft); it needs wit: on.',
    ),
    subjects_per_instance: count(
      1024,
      1,
      100_000,
      'Subject tokens that one identity of one instance may have handed in at a time.',
    ),
    subjects: count(
      16_384,
      1,
      1_000_000,
      'Subject tokens that are kept in memory at a time; no identity holds more of them than are left for all others.',
    ),
  },
  verifier: {
    socket: choice(
      ['off', 'on'],
      'off',
      'Whether DIR/public/verifier.sock is served, where services ask whether a request that they received is what it seems.',
    ),
    listen: listen(
      undefined,
      'The address where services on other machines ask the same over mutual TLS, or off.',
    ),
    clients: texts(
      [],
      'The SPIFFE IDs that may connect there; nobody else may. Routes say what each may ask about.',
    ),
    entry: optional('text', 'The entry whose SPIFFE ID and DNS names its certificate there has.'),
    certificate_file: optional('path', 'A certificate (PEM) to show there instead.'),
    key_file: optional('path', 'The key of that certificate (PEM); no other user may be able to read it.'),
    window: duration(MINUTE, 5, 10 * MINUTE, 'How old a proof of possession may be.'),
    skew: duration(5, 1, MINUTE, 'How far the clock of a caller may be off from the one here.'),
    replay: {
      limit: count(
        1_000_000,
        1_000,
        10_000_000,
        'Proofs that are remembered at a time; beyond it the oldest are forgotten, and older ones need a nonce.',
      ),
      share: count(100_000, 10, 10_000_000, 'Of these, how many one caller may hold.'),
      store: choice(
        ['memory', 'redis'],
        'memory',
        'Where proofs are remembered: in this process, or at a Redis server that the nodes of one service share.',
      ),
      url: {
        form: { kind: 'redis' },
        value: undefined,
        written: 'none',
        says: 'The Redis server: rediss://[USER@]HOST[:PORT][/DB], redis:// on loopback, or redis+unix:///PATH.',
      } satisfies Named<RedisPlace> as Named<RedisPlace>,
      password_file: optional('path', 'Its password; no other user may be able to read the file.'),
      ca_file: optional('path', 'The roots that it is verified by (PEM) instead of those of the system.'),
      certificate_file: optional(
        'path',
        'The certificate (PEM) that is shown to a server that asks for one; read for each connection.',
      ),
      key_file: optional(
        'path',
        'The key of that certificate (PEM); no other user may be able to read the file.',
      ),
      prefix: preset(
        'text',
        'holdfast',
        'What its keys and channels begin with; deploy/redis/users.acl allows no others.',
      ),
      on_failure: choice(
        ['refuse', 'local'],
        'refuse',
        'While it does not answer: refuse requests with proofs, or go on with the memory of this node alone.',
      ),
    },
    denylist: {
      file: optional('path', 'What is revoked: JSON lines or a YAML list; read again when it changes.'),
      url: optional('url', 'The same at an https URL.'),
      every: duration(30, 1, HOUR, 'How often that is asked.'),
    },
    status_lists: {
      max_age: duration(
        5 * MINUTE,
        1,
        HOUR,
        'How long a status list of tokens is used before it is asked for again; less where its ttl says so.',
      ),
      stale: duration(
        10 * MINUTE,
        1,
        DAY,
        'How much longer while it cannot be had; then its tokens are refused.',
      ),
    },
    nonce_key_file: optional(
      'path',
      'A file of at least 32 random bytes that nonces are made with, the same on each node that verifies for one service; no other user may be able to read it. Without one, a key is made at start.',
    ),
    nonce_life: duration(
      2 * MINUTE,
      5,
      15 * MINUTE,
      'How long a nonce is good for after it was given, and as long again, or 30s at most, until it changes.',
    ),
  },
  events: {
    listen: listen(undefined, 'The address that transmitters push security events to (RFC 8935), or off.'),
    certificate_file: optional('path', 'Its TLS certificate (PEM).'),
    key_file: optional('path', 'The key of that certificate (PEM); no other user may be able to read it.'),
    every: duration(5, 1, HOUR, 'How often transmitters with poll are asked (RFC 8936).'),
  },
  decision_hook: {
    url: {
      form: { kind: 'hook' },
      value: undefined,
      written: 'none',
      says: 'The decision hook that grants with hook: true are asked at: an https URL, or http on loopback.',
    } satisfies Named<string> as Named<string>,
    socket: optional('path', 'The unix socket of the decision hook, instead of a URL.'),
    timeout: duration(2, 1, 30, 'How long the hook may take to answer; then the request is refused.'),
    cache: {
      form: { kind: 'duration', min: 1, max: MINUTE },
      value: 0,
      written: 'none',
      says: 'How long an answer of the hook holds for requests that differ in nothing but time and counts.',
    } satisfies Setting<Seconds> as Setting<Seconds>,
  },
  audit: {
    sink: choice(
      ['file', 'stdout', 'none'],
      'file',
      'Where audit records go; with none, nothing is recorded.',
    ),
    file: optional('path', 'The audit file.', 'DIR/private/audit.jsonl'),
    on_failure: choice(
      ['refuse', 'continue'],
      'refuse',
      'Whether proofs and tokens are refused while records cannot be written.',
    ),
    rotate_mib: count(64, 1, 4096, 'The size at which the audit file is rotated, in MiB.'),
    keep: count(10, 1, 10_000, 'How many rotated audit files are kept.'),
  },
  ops: {
    listen: listen(
      undefined,
      'The address of /livez, /readyz and /metrics, such as 127.0.0.1:9465, or off; pod:9465 is the address of the pod (POD_IP).',
    ),
  },
  bundle_endpoint: {
    listen: listen(undefined, 'The address of the bundle endpoint (OIDC discovery, JWKS), or off.'),
    certificate_file: optional(
      'path',
      'Its TLS certificate (PEM); without one it serves plain HTTP, on loopback only.',
    ),
    key_file: optional('path', 'The key of that certificate (PEM); no other user may be able to read it.'),
    issuer: optional('url', 'The issuer named in OIDC discovery and in JWT-SVIDs: an https URL.'),
  },
  owners: {
    form: { kind: 'owners' },
    value: {} as Readonly<Partial<Record<Layer, OwnerContact>>>,
    written: '{}',
    says: 'Whom to ask about each layer of policy: a team and a contact, named in refusals.',
  } satisfies Setting<Readonly<Partial<Record<Layer, OwnerContact>>>>,
  kubernetes: KUBERNETES_SETTINGS,
  revocations: {
    file: optional('path', 'Where revocations are kept across restarts.', 'DIR/private/revocations.json'),
  },
} as const

type ValuesOf<T> = {
  readonly [K in keyof T as CamelCase<K & string>]: T[K] extends Setting<infer V> ? V : ValuesOf<T[K]>
}

/** The configuration as the agent reads it: the table's settings in camel case, durations in seconds. */
export type Config = ValuesOf<typeof SETTINGS>
