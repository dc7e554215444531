/** Which containers of a pod may still be started: what its specification wants, less what its status says is done. */
import { itemsOf, type Members, membersOf } from '../base/members.ts'

const OVER: ReadonlySet<unknown> = new Set(['Succeeded', 'Failed'])

/** Their names; those without a status are among them. None of a pod that is over, and no ephemeral one: it runs once. */
export function awaitedOf(spec: Members, status: Members): readonly string[] {
  if (OVER.has(status['phase'])) return []
  const of = (wanted: string, statuses: string, isInit: boolean) => {
    const written = new Map(itemsOf(status[statuses]).map((each) => [each['name'], membersOf(each['state'])]))
    return itemsOf(spec[wanted]).flatMap(({ name, restartPolicy }) => {
      const policy = restartPolicy || policyOf(spec, isInit)
      return typeof name === 'string' && mayStart(written.get(name), policy) ? [name] : []
    })
  }
  return [
    ...of('initContainers', 'initContainerStatuses', true),
    ...of('containers', 'containerStatuses', false),
  ]
}

/** A container without one of its own has that of its pod; one that comes before the others is done once it has succeeded. */
function policyOf({ restartPolicy }: Members, isInit: boolean): unknown {
  if (restartPolicy === 'Never') return 'Never'
  return isInit ? 'OnFailure' : restartPolicy
}

function mayStart(state: Members | undefined, policy: unknown): boolean {
  const { running, terminated } = state ?? {}
  if (!terminated) return !running
  if (policy === 'Never') return false
  return policy !== 'OnFailure' || (membersOf(terminated)['exitCode'] ?? 0) !== 0
}
