/** What is wrong with targets that take a subject's token in exchange, once all files are joined. */
import { meant } from '../base/nearest.ts'
import type { Problem } from '../base/problem.ts'
import type { IdentityStatement, NamedServer, PolicyContext } from './statements.ts'

/** Problems of `exchange` of one target; none where it has none. */
export function exchangeProblems(
  target: IdentityStatement,
  servers: readonly NamedServer[],
  nodes: PolicyContext['nodes'],
): readonly Problem[] {
  const { name, server, exchange, viaName, binding, place } = target
  if (!exchange) return []
  const { via, hasActor } = exchange
  const names = servers.map((each) => each.name)
  const refused = [
    [!server?.client, 'exchange wants a server with a client, at which the agent can ask'],
    [binding.includes('bearer'), 'a token in exchange is bound to the key of the workload: bearer is not'],
    [
      viaName !== undefined && !via,
      `no identity file has the server ${viaName}, which exchange.via names${meant(viaName ?? '', names)}`,
    ],
    [via && !via.client, `the server ${viaName}, which exchange.via names, has no client`],
    [via && via.issuer === server?.issuer, 'exchange.via is the server of the target: leave it out'],
    [
      hasActor && nodes === 'many',
      'actor: jwt_svid wants JWT-SVIDs, which authority.nodes: many has none of',
    ],
  ] as const
  return refused
    .filter(([holds]) => holds)
    .map(([, message]) => ({ ...place, message: `${name}: ${message}` }))
}
