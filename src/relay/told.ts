/** What the agent tells a sidecar of a target (`GET /v1/target`) and of one request to it, read into values of this house. */
import { X509Certificate } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { type Injected, pairsOf } from '../egress/headers.ts'
import type { TargetPlatform, TlsTrust } from '../policy/grant.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '../spiffe/id.ts'

type Members = Readonly<Record<string, unknown>>

/** A target that the sidecar connects to. */
export interface ToldTarget {
  readonly origin: string
  readonly platform: TargetPlatform
  /** Of the peer's trust domain, where TLS trusts that. */
  readonly bundle: Bundle | undefined
  readonly passesTransaction: boolean
}

/** The target in the agent's answer; undefined when the agent connects to it itself. Throws bug for another form. */
export function parseTarget(members: Members): ToldTarget | undefined {
  if (members['via'] === 'agent') return undefined
  const origin = textOf(members, 'origin')
  const tls = members['tls']
  if (members['via'] !== 'sidecar' || typeof tls !== 'object' || tls === null) throw foreign('via')
  const { concurrency } = members
  const { trust, bundle } = trustOf(tls as Members)
  const platform: TargetPlatform = {
    origins: [origin],
    tls: trust,
    addresses: textsOf(members, 'addresses'),
    via: 'sidecar',
    followsRedirects: false,
    rate: undefined,
    concurrency: typeof concurrency === 'number' ? concurrency : undefined,
    place: { file: 'agent', line: 0 },
  }
  return { origin, platform, bundle, passesTransaction: members['txn_token'] === true }
}

function trustOf(tls: Members): { readonly trust: TlsTrust; readonly bundle: Bundle | undefined } {
  const { peer_id: peer, server_name: name, trust } = tls
  const serverName = name === undefined ? undefined : textOf(tls, 'server_name')
  const peerId = peer === undefined ? undefined : parseSpiffeId(textOf(tls, 'peer_id'))
  const told = (kind: TlsTrust['trust'], bundle?: Bundle) => ({
    trust: { trust: kind, peerId, serverName },
    bundle,
  })
  if (trust === 'system') return told('system')
  const roots = textsOf(tls, 'roots')
  if (trust === 'roots') return told({ roots })
  if (trust !== 'spiffe' || peerId === undefined) throw foreign('trust')
  return told('spiffe', bundleOf(peerId, roots))
}

function bundleOf(peerId: SpiffeId, roots: readonly string[]): Bundle {
  return {
    trustDomain: trustDomainOf(peerId),
    x509Authorities: roots.map((pem) => new X509Certificate(pem).raw),
    jwtAuthorities: new Map(),
    witAuthorities: new Map(),
    sequence: 0n,
    refreshHintSeconds: 0,
  }
}

/** The headers of one request (`POST /v1/headers`). */
export interface ToldHeaders {
  readonly injected: Injected
  /** When the token in them ends, in seconds since 1970. */
  readonly tokenExpires: number | undefined
}

/** Throws bug for another form. */
export function parseHeaders({ headers, token_expires: expires }: Members): ToldHeaders {
  if (typeof headers !== 'object' || headers === null) throw foreign('headers')
  const flat = Object.entries(headers).flat()
  if (flat.length === 0 || flat.some((text) => typeof text !== 'string')) throw foreign('headers')
  return { injected: pairsOf(flat), tokenExpires: typeof expires === 'number' ? expires : undefined }
}

function textOf(members: Members, name: string): string {
  const value = members[name]
  if (typeof value === 'string') return value
  throw foreign(name)
}

function textsOf(members: Members, name: string): readonly string[] {
  const value = members[name]
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value
  throw foreign(name)
}

function foreign(name: string): Fault {
  return new Fault('bug', `the agent answers without a ${name} that this version understands`, {
    action: 'Run the sidecar in the version of the agent.',
  })
}
