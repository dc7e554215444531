/** The keys of OAuth clients: a mounted file's, or the node's own, one a client and server; neither leaves the agent. */
import { statSync } from 'node:fs'
import type { Seconds } from '../base/clock.ts'
import { readKeyFile } from '../keys/key-file.ts'
import type { KeyOwner, PublishedTerms, Vault } from '../keys/vault.ts'
import type { RuleBook } from '../policy/book.ts'
import type { ClientAuth, Server } from '../policy/grant.ts'
import type { Signer } from '../proof/signer.ts'
import type { PublicJwk } from '../spiffe/jwk.ts'

export type KeyClient = Extract<ClientAuth, { readonly method: 'private_key_jwt' }>

/** A public client key as a server registers it. */
export type ClientJwk = PublicJwk & { readonly kid: string; readonly alg: string; readonly use: 'sig' }

export interface ClientKeysOptions {
  readonly vault: Vault
  /** Aborts when the agent ends: the node's keys end with it. */
  readonly signal: AbortSignal
}

/** How long a server may keep a copy of the JWKS, as its Cache-Control says. */
export const JWKS_MAX_AGE: Seconds = 60
/**
 * The lead is several times what servers are told, for those that look less often. An assertion lives for a minute, and
 * a server whose clock is minutes off may check it later: the key before is known for ten.
 */
const TERMS: PublishedTerms = { lead: 300, ceiling: 600 }
const FILES_LIMIT = 256

/** Finds the key of a client. */
export class ClientKeys {
  readonly #vault: Vault
  readonly #signal: AbortSignal
  readonly #files = new Map<string, { readonly signature: string; readonly signer: Signer }>()

  constructor(options: ClientKeysOptions) {
    this.#vault = options.vault
    this.#signal = options.signal
  }

  /** The key that signs now; throws config_invalid, policy_writable, keys_exhausted, and not_ready after a loss. */
  signerFor(client: KeyClient, server: Server): Signer {
    if (client.keyFile !== undefined) return this.#fromFile(client.keyFile)
    return this.#vault.publishedSigner(this.#ownerOf(client), purposeOfClient(server), TERMS)
  }

  /** The public keys that the server must know: the next one too. The node's key is made if need be. */
  jwks(client: KeyClient, server: Server): readonly ClientJwk[] {
    if (client.keyFile !== undefined) return [jwkOf(this.#fromFile(client.keyFile))]
    return this.#vault.published(this.#ownerOf(client), purposeOfClient(server), TERMS).map(jwkOf)
  }

  #ownerOf(client: KeyClient): KeyOwner {
    return { spiffeId: ownerOfClient(client.clientId), instance: { key: 'node', signal: this.#signal } }
  }

  /** Read again when it has changed; the last good key stays while the file is not. */
  #fromFile(file: string): Signer {
    const known = this.#files.get(file)
    const signature = signatureOf(file)
    if (known?.signature === signature) return known.signer
    try {
      const signer = readKeyFile(file)
      if (this.#files.size >= FILES_LIMIT) this.#files.clear()
      this.#files.set(file, { signature, signer })
      return signer
    } catch (error) {
      if (known) return known.signer
      throw error
    }
  }
}

/** The JWK Set (RFC 7517) of the client at the server that policy calls `name`; undefined when it has none. */
export function clientJwks(keys: ClientKeys, book: RuleBook, name: string): string | undefined {
  const server = book.servers.get(name)
  const { client } = server ?? {}
  if (!server || client?.method !== 'private_key_jwt') return undefined
  return JSON.stringify({ keys: keys.jwks(client, server) })
}

/** The purpose of a client's key at `server`. */
export function purposeOfClient({ issuer }: Server): string {
  return `client:${issuer}`
}

/** Whose key it is in the vault: no SPIFFE ID, so no workload ever finds it. */
export function ownerOfClient(clientId: string): string {
  return `client:${clientId}`
}

function jwkOf({ publicJwk, jkt, alg }: Signer): ClientJwk {
  return { ...publicJwk, kid: jkt, alg, use: 'sig' }
}

function signatureOf(file: string): string {
  const stats = statSync(file, { throwIfNoEntry: false, bigint: true })
  return stats ? `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}` : 'none'
}
