/** The keys of OAuth clients: a mounted file's, or the node's own, one a client and server; neither leaves the agent. */
import { statSync } from 'node:fs'
import { readKeyFile } from '../keys/key-file.ts'
import type { KeyOwner, Vault } from '../keys/vault.ts'
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

// A server may hold an assertion for a minute; its copy of the JWKS is older.
const CEILING = 600
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

  /** The key that signs now; throws config_invalid, policy_writable, keys_exhausted. */
  signerFor(client: KeyClient, server: Server): Signer {
    if (client.keyFile !== undefined) return this.#fromFile(client.keyFile)
    return this.#vault.signerFor(this.#ownerOf(client), purposeOfClient(server), CEILING)
  }

  /** The public keys to register: current and just replaced ones, the node's key being made if need be. */
  jwks(client: KeyClient, server: Server): readonly ClientJwk[] {
    const current = this.signerFor(client, server)
    if (client.keyFile !== undefined) return [jwkOf(current)]
    const owner = this.#ownerOf(client)
    return this.#vault
      .list(owner)
      .filter(({ purpose }) => purpose === purposeOfClient(server))
      .flatMap(({ jkt }) => this.#vault.find(owner, jkt)?.signer ?? [])
      .map(jwkOf)
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
