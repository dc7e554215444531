/** What tells the tokens of one node apart: whose they are, for what, from where, on whose behalf. */
import { ownerKey } from '../keys/vault.ts'
import type { TokenNeed } from './token-request.ts'
import type { TokenAsk } from './tokens.ts'

export function needOf({ workload, ...ask }: TokenAsk): TokenNeed {
  return { ...ask, instance: workload.instanceOf(ask.entry) }
}

/** Everything that may make two tokens differ; `policy` is the hash of what decides. */
export function keyOf(
  { entry, instance, target, server, signer, certificate, subject }: TokenNeed,
  policy: string,
): string {
  const { identity } = target
  return JSON.stringify([
    entry.spiffeId,
    instance.key,
    target.name,
    server.issuer,
    server.tokenEndpoint,
    server.client,
    signer.jkt,
    certificate?.x5t,
    identity?.scopes,
    identity?.resource,
    identity?.maxTtl,
    // The actor token is of this identity, anew for each request: the identity stands for it.
    subject ? [subject.hash, subject.id, identity?.exchange] : null,
    policy,
  ])
}

export function ownerOf({ entry, instance }: Pick<TokenNeed, 'entry' | 'instance'>): string {
  return ownerKey({ spiffeId: entry.spiffeId, instance })
}

/** What a workload exchanges at one place. */
export function exchangeOf(need: TokenNeed): string {
  return need.subject ? `${placeOf(need)} ${ownerOf(need)}` : ''
}

/** Servers that are asked one after the other fail together. */
export function placeOf({ server, subject, target }: TokenNeed): string {
  const via = subject && target.identity?.exchange?.via
  return via ? `${via.issuer} ${server.issuer}` : server.issuer
}
