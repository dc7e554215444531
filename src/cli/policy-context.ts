/** What the commands read policy against: the settings that decide whether a statement can hold. */
import type { Seconds } from '../base/clock.ts'
import { type Config, sharesKeys } from '../config.ts'
import type { PolicyContext } from '../policy/statements.ts'

/** The context that `config` gives. */
export function policyContext(config: Config, now: () => Seconds): PolicyContext {
  const { clusterName, clusterDomain } = config.kubernetes
  const { trustDomain, svid, authority, decisionHook, events, tokens, verifier, wit } = config
  const attestation = tokens.clientAttestation === 'on' && wit === 'on' && sharesKeys(config)
  const hasHook = decisionHook.url !== undefined || decisionHook.socket !== undefined
  // Another node on the same store may take them, and where nothing is verified nothing has to be heard.
  const takesEvents =
    verifier.socket === 'off' ? undefined : events.listen !== undefined || verifier.replay.store === 'redis'
  const defaults = svid
  const names = { clusterName, clusterDomain }
  return {
    trustDomain,
    ...names,
    defaults,
    nodes: authority.nodes,
    sharesKeys: sharesKeys(config),
    attestation,
    hasHook,
    takesEvents,
    now,
  }
}
