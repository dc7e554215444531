/**
 * What the names of secrets mean to one caller: a SPIFFE ID, `default` (its first), `spiffe://TRUST-DOMAIN`, `ROOTCA`
 * and `ALL` (bundles), or no name at all (everything that it may have). One name that leads nowhere hinders no other.
 */
import { entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import { Fault, type Reason } from '../base/fault.ts'
import type { Entry } from '../policy/entry.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import { idOfTrustDomain, parseSpiffeId, pathOf, type SpiffeId, trustDomainOf } from '../spiffe/id.ts'
import { bundleSecret, type Secret, svidSecret, type Validator } from './sds-secrets.ts'
import type { Svids } from './svids.ts'
import { federatedOf, type TrustedBundles } from './trusted-bundles.ts'

/** Which bundles `ROOTCA` is: that of the caller's trust domain, or all, as Istio needs it to federate. */
export type RootCa = 'own' | 'all'

export interface SecretSource {
  readonly svids: Svids
  readonly bundles: TrustedBundles
  readonly revocations: Revocations
  /** Where the caller's first entry says nothing. */
  readonly rootca: RootCa
  readonly validator: Validator
}

/** What a client asks for. */
export interface Asked {
  /** undefined: everything. */
  readonly names: ReadonlySet<string> | undefined
  /** The client says that it lacks the SPIFFE validator: its peers are its own to verify. */
  readonly isPlain: boolean
}

export interface Found {
  readonly secrets: readonly Secret[]
  /** Why the other names lead to none, in the order asked. */
  readonly refusals: readonly Fault[]
}

/** Refusals that may be over in a moment: whoever waits is answered then. */
const PASSING: ReadonlySet<Reason> = new Set([
  'no_identity',
  'bundle_missing',
  'authority_unavailable',
  'cluster_unavailable',
])

export function isPassing({ reason }: Fault): boolean {
  return PASSING.has(reason)
}

/** The caller's secrets of these names; throws what ends every call of the caller: revoked, lease_ended, peer_gone. */
export function findSecrets(source: SecretSource, workload: Workload, asked: Asked): Found {
  let entries: readonly Entry[]
  try {
    entries = entitled(workload, source.revocations)
  } catch (caught) {
    const fault = Fault.from(caught)
    if (isPassing(fault)) return { secrets: [], refusals: [fault] }
    throw caught
  }
  const finder = new Finder(source, entries, asked.isPlain)
  return finder.all(asked.names ?? finder.everything())
}

class Finder {
  readonly #source: SecretSource
  readonly #entries: readonly Entry[]
  readonly #rootca: RootCa
  readonly #validator: Validator

  constructor(source: SecretSource, entries: readonly Entry[], isPlain: boolean) {
    this.#source = source
    this.#entries = entries
    const { rootca, validator } = entries[0]?.sds ?? {}
    this.#rootca = rootca ?? source.rootca
    this.#validator = isPlain ? 'trusted_ca' : (validator ?? source.validator)
  }

  all(names: Iterable<string>): Found {
    const secrets: Secret[] = []
    const refusals: Fault[] = []
    for (const name of names) {
      try {
        secrets.push(this.#one(name))
      } catch (caught) {
        refusals.push(Fault.from(caught))
      }
    }
    return { secrets, refusals }
  }

  /** Each SVID that is delivered and each bundle, by its SPIFFE ID. */
  everything(): ReadonlySet<string> {
    const svids = this.#entries.filter(({ deliver }) => deliver.x509).map(({ spiffeId }) => spiffeId)
    return new Set([...svids, ...this.#bundles().map(({ trustDomain }) => idOfTrustDomain(trustDomain))])
  }

  /** Its own trust domain first. */
  #bundles(): readonly Bundle[] {
    const { bundles } = this.#source
    return [bundles.own.get(), ...federatedOf(bundles, this.#entries)]
  }

  #one(name: string): Secret {
    const all = this.#bundles()
    switch (name) {
      case 'default':
        return this.#svid(name, this.#entries)
      case 'ROOTCA':
        return this.#bundle(name, this.#rootca === 'all' ? all : all.slice(0, 1))
      case 'ALL':
        return this.#bundle(name, all)
      default:
        return this.#byId(name, idIn(name))
    }
  }

  #byId(name: string, id: SpiffeId): Secret {
    const trustDomain = trustDomainOf(id)
    if (pathOf(id) === '')
      return this.#bundle(
        name,
        this.#bundles().filter((bundle) => bundle.trustDomain === trustDomain),
      )
    if (trustDomain !== this.#source.bundles.own.get().trustDomain) throw unknown(name)
    return this.#svid(
      name,
      this.#entries.filter(({ spiffeId }) => spiffeId === id),
    )
  }

  #svid(name: string, entries: readonly Entry[]): Secret {
    if (entries.length === 0)
      throw new Fault('no_identity', 'no identity issued: the SPIFFE ID is not one of this caller')
    const entry = entries.find(({ deliver }) => deliver.x509)
    if (!entry) throw new Fault('delivery_denied', 'no entry of this caller delivers x509 under this name')
    return svidSecret(name, entry, this.#source.svids.x509(entry))
  }

  #bundle(name: string, bundles: readonly Bundle[]): Secret {
    const secret = bundleSecret(name, bundles, this.#validator)
    if (!secret) throw new Fault('bundle_missing', 'no bundle of this trust domain is known to this caller')
    return secret
  }
}

function idIn(name: string): SpiffeId {
  try {
    return parseSpiffeId(name)
  } catch {
    throw unknown(name)
  }
}

function unknown(name: string): Fault {
  return new Fault('secret_unknown', `no secret is called ${JSON.stringify(name.slice(0, 128))}`)
}
