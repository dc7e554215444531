/** The SDK: what an application imports from `holdfast/client`. */

export type { FaultJson, Owner, Reason } from '../base/fault.ts'
export { Fault } from '../base/fault.ts'
export type { AgentOptions } from './agent.ts'
export type { HeldKey, KeysChange, KeysListener } from './keys.ts'
export type { AskProofOptions } from './proof-stream.ts'
export type { DpopProof, DpopRequest, Signer, SignerOptions, Wpt, WptRequest } from './signer.ts'
export { openSigner } from './signer.ts'
