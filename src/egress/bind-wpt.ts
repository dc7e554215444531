/** The WIT-SVID of the caller and the proof of its key (draft-ietf-wimse-wpt), over the tokens that go along. */
import { Fault } from '../base/fault.ts'
import { hashOf } from '../proof/jwt.ts'
import { makeWpt } from '../proof/wpt.ts'
import { type BindAsk, type BindOptions, type Carried, type Part, signerFor } from './bound.ts'
import { firstOf } from './headers.ts'

/** `ath` and `tth` are mandatory where their tokens go along. Throws unimplemented, revoked, keys_exhausted, key_lost. */
export function bindWpt(options: BindOptions, ask: BindAsk, { ath }: Carried): Part {
  const { heldWit, clock } = options
  if (!heldWit) throw witOff('WPTs')
  const signer = signerFor(options, ask, 'wpt')
  const wit = heldWit(ask.entry, signer)
  const transaction = firstOf(ask.passed, 'txn-token')
  const tth = transaction === undefined ? undefined : hashOf(transaction)
  const { proof, jti, exp } = makeWpt(signer, { aud: ask.url.htu, wit, ath, tth }, clock)
  return {
    headers: [
      ['Workload-Identity-Token', wit],
      ['Workload-Proof-Token', proof],
    ],
    expires: exp,
    jkt: signer.jkt,
    jti,
  }
}

/** `what` needs a WIT, and there are none. */
export function witOff(what: string): Fault {
  return new Fault('unimplemented', `${what} are off: \`wit: on\` in the configuration enables them`)
}
