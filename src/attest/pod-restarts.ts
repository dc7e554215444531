/** Which containers of a pod may still be started: what its specification wants, less what its status says is done. */
import { itemsOf, type Members, membersOf } from '../base/members.ts'

const OVER: ReadonlySet<unknown> = new Set(['Succeeded', 'Failed'])

/** A container that does not run, as far as is written of it, and may be started. */
export interface Awaited {
  readonly name: string
  readonly kind: 'app' | 'init'
}

/** Those without a status are among them. None of a pod that is over, and no ephemeral one: it runs once. */
export function awaitedOf(spec: Members, status: Members): readonly Awaited[] {
  if (OVER.has(status['phase'])) return []
  const of = (wanted: string, statuses: string, kind: Awaited['kind']) => {
    const written = new Map(itemsOf(status[statuses]).map((each) => [each['name'], membersOf(each['state'])]))
    return itemsOf(spec[wanted]).flatMap(({ name, restartPolicy }) => {
      const policy = restartPolicy || policyOf(spec, kind === 'init')
      return typeof name === 'string' && mayStart(written.get(name), policy) ? [{ name, kind }] : []
    })
  }
  return [
    ...of('initContainers', 'initContainerStatuses', 'init'),
    ...of('containers', 'containerStatuses', 'app'),
  ]
}

/** Whether a debugger was put in of which no container is written: any unknown container may be that one. */
export function hasUnwrittenDebugger(spec: Members, status: Members): boolean {
  const written = itemsOf(status['ephemeralContainerStatuses']).filter(({ containerID: id }) => !!id)
  const names = new Set(written.map(({ name }) => name))
  // In protobuf the members of a container are one level down.
  return itemsOf(spec['ephemeralContainers']).some(
    ({ name, ephemeralContainerCommon: common }) => !names.has(name || membersOf(common)['name']),
  )
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
