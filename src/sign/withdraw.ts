/** What a change of policy takes away at once: keys of identities and purposes that no statement names any more. */
import type { Vault } from '../keys/vault.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Binding, Server, Target } from '../policy/grant.ts'
import { purposeOf } from './sign.ts'

/** Destroys the keys that `book` has no use for; how many there were. */
export function withdrawKeys(vault: Vault, book: RuleBook): number {
  const ids = new Set<string>(book.identities().map((entry) => entry.spiffeId))
  const purposes = new Set([...book.targets.values()].flatMap(purposesOf))
  const clients = new Set([...book.servers.values()].flatMap(clientOf))
  return vault.retain((owner, purpose) =>
    purpose.startsWith('client:')
      ? clients.has(`${owner} ${purpose}`)
      : ids.has(owner) && purposes.has(purpose),
  )
}

/** The node's key of an OAuth client: owner and purpose. */
function clientOf({ client, issuer }: Server): readonly string[] {
  return client?.method === 'private_key_jwt' ? [`client:${client.clientId} client:${issuer}`] : []
}

function purposesOf(target: Target): readonly string[] {
  if (!target.identity || !target.platform || !target.application) return []
  return target.identity.binding.map((kind) => PURPOSES[kind] ?? purposeOf(target))
}

/** Kinds whose keys serve every target alike. */
const PURPOSES: Partial<Record<Binding, string>> = { wpt: 'wpt', 'http-signature': 'httpsig' }
