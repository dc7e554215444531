/**
 * The SDK: what an application imports from `holdfast/client`. Whatever fails does so with a `Fault`, whose `reason` is
 * stable, whose `message` holds no secret, and which says who has to do what; an aborted call with its signal's reason.
 *
 * @example
 * try {
 *   await signer.dpop({ method: 'GET', url: 'https://api.example.org/items' })
 * } catch (error) {
 *   if (error instanceof Fault && error.reason === 'target_unknown') console.error(error.owner, error.action)
 * }
 */

export type { FaultJson, Owner, Reason } from '../base/fault.ts'
export { Fault } from '../base/fault.ts'
export type { AgentOptions } from './agent.ts'
export type { HoldfastFetchOptions } from './egress-fetch.ts'
export { createHoldfastFetch, holdfastFetch } from './egress-fetch.ts'
export type { WrapFetchOptions } from './fetch.ts'
export { wrapFetch } from './fetch.ts'
export type { FetchJwtOptions, JwtSource, JwtSourceOptions, JwtSvid, JwtVerdict } from './jwt-source.ts'
export { openJwtSource } from './jwt-source.ts'
export type { HeldKey, KeysChange, KeysListener } from './keys.ts'
export type { AskProofOptions } from './proof-stream.ts'
export type { DpopProof, DpopRequest, Signer, SignerOptions, Wpt, WptRequest } from './signer.ts'
export { openSigner } from './signer.ts'
export type { OpenOptions } from './source.ts'
export type { X509Pem, X509Source, X509SourceOptions } from './x509-source.ts'
export { openX509Source } from './x509-source.ts'
export type { X509Svid } from './x509-svid.ts'
