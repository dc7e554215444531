/** What the commands read policy against: the settings that decide whether a statement can hold. */
import type { Seconds } from '../base/clock.ts'
import type { Config } from '../config.ts'
import type { PolicyContext } from '../policy/statements.ts'

/** The context that `config` gives. */
export function policyContext(config: Config, now: () => Seconds): PolicyContext {
  const { trustDomain, svid, authority, decisionHook, tokens, wit } = config
  const attestation = tokens.clientAttestation === 'on' && wit === 'on' && authority.nodes === 'one'
  const hasHook = decisionHook.url !== undefined || decisionHook.socket !== undefined
  return { trustDomain, defaults: svid, nodes: authority.nodes, attestation, hasHook, now }
}
