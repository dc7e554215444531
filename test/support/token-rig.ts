/** A token client over the real network stack, one workload and one target; what it is told to trust is a test CA. */
import type { KeyObject } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Workload } from '../../src/attest/workload.ts'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import { Live } from '../../src/base/live.ts'
import { ClientKeys, type KeyClient } from '../../src/egress/client-key.ts'
import { Dialer } from '../../src/egress/dial.ts'
import { Resolver } from '../../src/egress/resolve.ts'
import { Subjects } from '../../src/egress/subjects.ts'
import { openTokenClient, type TokenClient } from '../../src/egress/token-client.ts'
import type { BoundToken, TokenAsk } from '../../src/egress/tokens.ts'
import { Trust } from '../../src/egress/trust.ts'
import { embeddedAuthority } from '../../src/issue/embedded.ts'
import { Svids } from '../../src/issue/svids.ts'
import { Vault } from '../../src/keys/vault.ts'
import type { RuleBook } from '../../src/policy/book.ts'
import type { Entry } from '../../src/policy/entry.ts'
import type {
  ClientAuth,
  Exception,
  Server,
  Target,
  TargetIdentity,
  TargetPlatform,
} from '../../src/policy/grant.ts'
import type { Signer } from '../../src/proof/signer.ts'
import { purposeOf } from '../../src/sign/sign.ts'
import type { Bundle } from '../../src/spiffe/bundle.ts'
import { parseTrustDomain, type SpiffeId } from '../../src/spiffe/id.ts'
import { entry as entryNamed } from './book.ts'
import { pem } from './openssl.ts'
import type { TestCa } from './tls.ts'

export const RESOURCE = 'https://orders.example.org'
const PLACE = { file: 'identity.yaml', line: 1 }

export interface RigOptions {
  readonly ca: TestCa
  readonly clock?: Clock
  readonly trustDomain?: string
  readonly jwt?: boolean
  readonly rotation?: number
  readonly timeout?: number
  readonly addresses?: readonly string[]
  /** Where the target is; platform says nothing of it when absent. */
  readonly origins?: readonly string[]
  readonly exception?: Exception
  readonly random?: () => number
  /** Client attestation: by the WIT-SVID over the key, or by what the test makes of it; off when absent. */
  readonly attest?: 'wit' | ((entry: Entry, signer: Signer) => string)
}

/** One workload, whose lease can be ended. */
export interface RigWorkload {
  readonly workload: Workload
  readonly entry: Entry
  end(): void
}

export interface TokenRig extends TokenClient {
  readonly vault: Vault
  readonly clientKeys: ClientKeys
  readonly book: Live<RuleBook>
  /** What `onToken` heard: kind, or kind and reason. */
  readonly events: readonly string[]
  /** What verifies the authority's tokens. */
  readonly bundle: () => Bundle
  /** The authority's certificate in PEM: what vouches for X.509-SVIDs. */
  readonly clientRoot: string
  /** The keys of JWT-SVIDs. */
  readonly jwtKeys: () => readonly KeyObject[]
  /** Its subject tokens, with handles of `ask`'s workload. */
  readonly subjects: Subjects
  workload(name?: string): RigWorkload
  ask(server: Server, one: RigWorkload, over?: Partial<TargetIdentity>, name?: string): TokenAsk
  get(ask: TokenAsk, signal?: AbortSignal): Promise<BoundToken>
  close(): void
}

export const privateKeyJwt = (clientId: string, keyFile?: string): KeyClient => ({
  method: 'private_key_jwt',
  clientId,
  keyFile,
})

export const serverAt = (issuer: string, client: ClientAuth, tokenEndpoint?: string): Server => ({
  issuer,
  tokenEndpoint,
  client,
})

/** Opens it; the caller closes it. */
export function openTokenRig(options: RigOptions): TokenRig {
  const { ca, clock = systemClock } = options
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-tokens-'))
  const file = join(dir, 'ca.pem')
  writeFileSync(file, ca.pem)
  const tls = { trust: { file }, peerId: undefined, serverName: undefined }
  const addresses = options.addresses ?? ['127.0.0.1', '::1']
  const platform = options.origins && { ...NOWHERE, origins: options.origins, tls, addresses }
  const book = new Live(bookOf({ tls, addresses }, options.exception))
  const authority = embeddedAuthority({
    trustDomain: parseTrustDomain(options.trustDomain ?? 'example.test'),
    clock,
    algorithm: 'ES256',
    intermediate: false,
    caTtl: 86_400,
    keyTtl: 86_400,
    wit: options.attest !== undefined,
  })
  const subjects = new Subjects({ clock, perInstance: 100, limit: 1_000 })
  const vault = new Vault({ clock, rotation: options.rotation ?? 3_600 })
  const ending = new AbortController()
  const clientKeys = new ClientKeys({ vault, signal: ending.signal })
  const events: string[] = []
  const svids = new Svids({ authority, clock })
  const attest = options.attest === 'wit' ? svids.heldWit.bind(svids) : options.attest
  const trust = new Trust({ clock, bundleOf: () => authority.bundle.get() })
  const client = openTokenClient({
    dialer: new Dialer({ clock, resolver: new Resolver({ clock }), trust }),
    vault,
    clientKeys,
    book,
    authority,
    clock,
    jwt: options.jwt ?? true,
    attest,
    timeout: options.timeout ?? 5_000,
    renewBefore: 60,
    skew: 30,
    limit: 100,
    ...(options.random ? { random: options.random } : {}),
    onToken: (kind, fault) => events.push(fault ? `${kind}: ${fault.reason}` : kind),
  })
  return {
    ...client,
    vault,
    clientKeys,
    book,
    events,
    bundle: () => authority.bundle.get(),
    jwtKeys: () => [...authority.bundle.get().jwtAuthorities.values()].map(({ key }) => key),
    subjects,
    clientRoot: authority.bundle.get().x509Authorities.map(pem).join(''),
    workload: makeWorkload,
    ask: (server, { workload, entry }, over, name) => {
      const target = targetOf(server, over, { name, platform })
      const instance = workload.instanceOf(entry)
      const owner = { spiffeId: entry.spiffeId, instance }
      if (target.identity?.binding.includes('mtls')) {
        const certificate = client.certificates.current({ entry, instance, purpose: 'target:orders' })
        return { workload, entry, target, server, signer: certificate.signer, certificate }
      }
      const signer = vault.signerFor(owner, purposeOf(target), 300)
      return { workload, entry, target, server, signer }
    },
    get: (ask, signal = new AbortController().signal) => client.tokens.get(ask, signal),
    close: () => {
      client.stop()
      ending.abort()
      vault.stop()
      authority.stop()
      rmSync(dir, { recursive: true })
    },
  }
}

/** Only what the token client reads of a book is there. */
function bookOf(platform: ReturnType<RuleBook['serverTls']>, exception: Exception | undefined): RuleBook {
  const book: Pick<RuleBook, 'hash' | 'serverTls' | 'exceptionOf'> = {
    hash: '0123456789abcdef',
    serverTls: () => platform,
    exceptionOf: () => exception,
  }
  return book as RuleBook
}

/** The same book after a reload that changed something. */
export const reloaded = (book: RuleBook): RuleBook => ({ ...book, hash: `${book.hash.slice(1)}0` })

const NOWHERE: Omit<TargetPlatform, 'origins' | 'tls' | 'addresses'> = {
  via: 'agent',
  followsRedirects: false,
  rate: undefined,
  concurrency: undefined,
  place: PLACE,
}

let instances = 0

export function makeWorkload(name = 'web'): RigWorkload {
  const entry = entryNamed(name, ['unix:uid:1000'])
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  instances += 1
  const instance = { key: `process:${instances}:1`, signal: controller.signal }
  const workload = { instanceOf: () => instance, signal: controller.signal } as unknown as Workload
  return { workload, entry, end: () => controller.abort() }
}

/** A target of `server`; `over` what its identity says otherwise. */
export function targetOf(
  server: Server,
  over: Partial<TargetIdentity> = {},
  { name = 'orders', platform }: { name?: string | undefined; platform?: TargetPlatform | undefined } = {},
): Target {
  const identity: TargetIdentity = {
    server,
    custody: 'nothing',
    maxTtl: 300,
    hashOnly: false,
    tokenless: false,
    binding: ['dpop'],
    resource: RESOURCE,
    scopes: ['read'],
    tooLong: 'refuse',
    isDiscovered: false,
    exchange: undefined,
    passesTransaction: false,
    place: PLACE,
    ...over,
  }
  return { name, identity, platform, application: undefined }
}

/** `reason: message` of what a promise is rejected with; `none` when it is not. */
export async function refusal(promise: Promise<unknown>): Promise<string> {
  try {
    await promise
    return 'none'
  } catch (error) {
    return error instanceof Fault ? `${error.reason}: ${error.message}` : String(error)
  }
}

export const idOf = (name: string) => `spiffe://example.test/${name}` as SpiffeId
