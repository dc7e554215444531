/** `holdfast explain pod NAMESPACE/NAME`: what the containers of a pod are known by, and who they are by policy. */
import { Fault, printable } from '../base/fault.ts'
import type { PodExplanation } from '../operate/explain-pod.ts'
import { askAsOperator } from './agent.ts'
import type { ExplainOptions } from './explain.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json, tinted } from './render.ts'

/** Prints it; the code says whether any container has an identity. Throws usage, pod_unknown. */
export async function explainPod(pod: string, options: ExplainOptions, io: Io): Promise<ExitCode> {
  const [namespace, name, ...rest] = pod.split('/')
  if (!namespace || !name || rest.length > 0)
    throw new Fault('usage', `${pod}: wanted NAMESPACE/NAME of a pod of this node`)
  const call = { method: 'POST', path: '/v1/explain-pod', body: { namespace, name } } as const
  const found = await askAsOperator<PodExplanation>(options, io, call)
  io.out(options.output === 'json' ? json(found) : podText(found, io.isColored))
  return found.containers.some(({ identities }) => identities.length > 0) ? EXIT.ok : EXIT.refused
}

export function podText(found: PodExplanation, isColored: boolean): string {
  const head = `pod ${found.namespace}/${found.name}, service account ${found.service_account ?? 'none'}, policy ${found.policy}`
  return [head, ...found.containers.map((container) => containerText(container, isColored))]
    .map((text) => `${text}\n`)
    .join('')
}

function containerText(container: PodExplanation['containers'][number], isColored: boolean): string {
  const { kind, name, state, identities, selectors, why } = container
  const head = `${tinted(printable(name), 'bold', isColored)} (${kind}, ${state})`
  if (why !== undefined) return `${head}\n  ${tinted('no identity', 'red', isColored)}: ${printable(why)}`
  const whom = identities.map(
    ({ delivers, entry, instance, place, spiffe_id: id }) =>
      `  ${tinted(id, 'green', isColored)}  entry ${entry} (${place}), keys live as long as the ${instance}, delivers ${delivers.join(', ') || 'nothing'}`,
  )
  const facts = selectors.map((selector) => `  ${tinted(printable(selector), 'dim', isColored)}`)
  const none = `  ${tinted('no identity', 'red', isColored)}: no entry matches these facts; an entry that also wants unix: is seen with --pid`
  return [head, ...(whom.length > 0 ? whom : [none]), ...facts].join('\n')
}
