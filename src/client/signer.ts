/** Proofs for the requests of this process, signed by the agent: the private keys are not here. */
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Agent, type AgentOptions, openAgent } from './agent.ts'
import type { Message } from './grpc.ts'
import { type HeldKey, type KeysListener, KeyWatch } from './keys.ts'
import { type AskProofOptions, ProofStream } from './proof-stream.ts'
import { awaitedClock } from './timer.ts'

export interface SignerOptions extends AgentOptions {
  /** Which of this process's identities signs; its first one when absent. */
  readonly spiffeId?: string
}

/** RFC 9449: the facts of one HTTP request. `accessToken` and `ath` exclude each other. */
export interface DpopRequest {
  readonly method: string
  /** Absolute URL; query and fragment are no part of a proof and stay here. */
  readonly url: string
  /** The access token that goes with the request; the agent checks that it is bound to a key of this process. */
  readonly accessToken?: string | undefined
  /** base64url SHA-256 of the access token, for targets with `hash_only`. */
  readonly ath?: string | undefined
  /** The last `DPoP-Nonce` of the server. */
  readonly nonce?: string | undefined
  /** Names one of the keys; the target's current one, or the one the token is bound to, when absent. */
  readonly jkt?: string | undefined
}

export interface DpopProof {
  /** The value of the `DPoP` header, for one request only. */
  readonly proof: string
  readonly jkt: string
  readonly jti: string
  /** Seconds since 1970. */
  readonly iat: number
}

/** draft-ietf-wimse-wpt: a proof for the agent-held WIT-SVID. `accessToken` and `ath`, `txnToken` and `tth` exclude each other. */
export interface WptRequest {
  /** Absolute URL; query and fragment are no part of a proof and stay here. */
  readonly url: string
  readonly accessToken?: string | undefined
  readonly ath?: string | undefined
  readonly txnToken?: string | undefined
  /** base64url SHA-256 of the Txn-Token. */
  readonly tth?: string | undefined
}

export interface Wpt {
  /** The value of the `Workload-Proof-Token` header, for one request only. */
  readonly proof: string
  /** The value of the `Workload-Identity-Token` header. */
  readonly wit: string
  readonly jkt: string
  readonly jti: string
  /** Seconds since 1970. */
  readonly exp: number
}

/**
 * Signs through the agent. Open one per process and share it: calls of one tick travel together. Its stream holds the
 * process open until `close()`.
 */
export interface Signer extends AsyncDisposable {
  /**
   * A DPoP proof.
   *
   * @example
   * const { proof } = await signer.dpop({ method: 'GET', url: 'https://api.example.org/items', accessToken })
   */
  dpop(request: DpopRequest, options?: AskProofOptions): Promise<DpopProof>
  /**
   * A workload proof token and the WIT-SVID it belongs to.
   *
   * @example
   * const { proof, wit } = await signer.wpt({ url: 'https://orders.example.org/' })
   */
  wpt(request: WptRequest, options?: AskProofOptions): Promise<Wpt>
  /**
   * Calls `listener` with the keys now and after each change; the returned function ends it.
   *
   * @example
   * const stop = signer.onKeys(({ keys }) => console.log(keys.map(({ purpose, jkt }) => `${purpose} ${jkt}`)))
   */
  onKeys(listener: KeysListener): () => void
  /**
   * Calls `listener` with the keys that are lost: tokens bound to them are useless. The returned function ends it.
   *
   * @example
   * signer.onKeysLost((lost) => lost.forEach(({ jkt }) => tokens.delete(jkt)))
   */
  onKeysLost(listener: (lost: readonly HeldKey[]) => void): () => void
  /** Ends the streams; pending calls reject with `canceled`. */
  close(): void
}

/**
 * Opens a signer. Nothing is sent before the first call, and an agent that is not there yet is waited for within each
 * call's time. Throws invalid_request for a socket that is not a unix one. Calls reject with the agent's refusal.
 *
 * @example
 * await using signer = openSigner()
 * const { proof } = await signer.dpop({ method: 'GET', url: 'https://api.example.org/items', accessToken })
 */
export function openSigner({ spiffeId, ...options }: SignerOptions = {}): Signer {
  return signerOver(openAgent(options), awaitedClock, spiffeId)
}

/** The signer over an agent that is open already. */
export function signerOver(agent: Agent, clock: Clock, spiffeId?: string): Signer {
  const stream = new ProofStream({ agent, clock })
  const keys = new KeyWatch(agent, clock)
  const close = () => {
    stream.close()
    keys.close()
    agent.close()
  }
  return {
    dpop: (request, each = {}) => askDpop(stream, request, spiffeId, each),
    wpt: (request, each = {}) => askWpt(stream, request, spiffeId, each),
    onKeys: (listener) => keys.listen(listener),
    onKeysLost: (listener) => keys.listen(({ lost }) => lost.length > 0 && listener(lost)),
    close,
    [Symbol.asyncDispose]: async () => close(),
  }
}

type Members = Readonly<Record<string, string | undefined>>

function askDpop(
  stream: ProofStream,
  { method, url, accessToken, ath, nonce, jkt }: DpopRequest,
  spiffeId: string | undefined,
  options: AskProofOptions,
): Promise<DpopProof> {
  const dpop = {
    method,
    url: signedPart(url),
    access_token: accessToken,
    ath,
    nonce,
    jkt,
    spiffe_id: spiffeId,
  }
  const size = sizeOf(dpop)
  if (size === undefined) return Promise.reject(notText(dpop))
  return stream.ask({ id: 0, dpop }, size, options) as Promise<Message & DpopProof>
}

function askWpt(
  stream: ProofStream,
  { url, accessToken, ath, txnToken, tth }: WptRequest,
  spiffeId: string | undefined,
  options: AskProofOptions,
): Promise<Wpt> {
  const wpt = {
    url: signedPart(url),
    access_token: accessToken,
    ath,
    txn_token: txnToken,
    tth,
    spiffe_id: spiffeId,
  }
  const size = sizeOf(wpt)
  if (size === undefined) return Promise.reject(notText(wpt))
  return stream.ask({ id: 0, wpt }, size, options) as Promise<Message & Wpt>
}

/** Queries hold secrets, and no proof covers them (RFC 9449 s.4.2). */
function signedPart(url: string): string {
  const end = typeof url === 'string' ? url.search(/[?#]/) : -1
  return end === -1 ? url : url.slice(0, end)
}

/** The characters of all members; undefined when one is neither text nor absent. */
function sizeOf(members: Members): number | undefined {
  let size = 0
  for (const name in members) {
    const value = members[name]
    if (typeof value === 'string') size += value.length
    else if (value !== undefined) return undefined
  }
  return size
}

function notText(members: Members): Fault {
  const name = Object.keys(members).find((each) => !['string', 'undefined'].includes(typeof members[each]))
  return new Fault('invalid_request', `${name} is not a text`)
}
