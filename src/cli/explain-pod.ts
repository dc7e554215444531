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
  const notes = found.notes.map((note) => `  ${tinted('note', 'dim', isColored)}: ${printable(note)}`)
  const lines = [head, ...weakLines(found.weaknesses, '  ', isColored), ...notes]
  return [...lines, ...found.containers.map((container) => containerText(container, isColored))]
    .map((text) => `${text}\n`)
    .join('')
}

const weakLines = (sentences: readonly string[], indent: string, isColored: boolean) =>
  sentences.map((each) => `${indent}${tinted('weak', 'yellow', isColored)}: ${printable(each)}`)

type Container = PodExplanation['containers'][number]

function containerText(container: Container, isColored: boolean): string {
  const { kind, name, state, identities, selectors, weaknesses, why } = container
  const head = `${tinted(printable(name), 'bold', isColored)} (${kind}, ${state})`
  if (why !== undefined) return `${head}\n  ${tinted('no identity', 'red', isColored)}: ${printable(why)}`
  const whom = identities.flatMap((identity) => identityLines(identity, isColored))
  const facts = selectors.map((selector) => `  ${tinted(printable(selector), 'dim', isColored)}`)
  const none = `  ${tinted('no identity', 'red', isColored)}: no entry matches these facts; an entry that also wants unix: is seen with --pid`
  const weak = weakLines(weaknesses, '  ', isColored)
  return [head, ...weak, ...(whom.length > 0 ? whom : [none]), ...facts].join('\n')
}

function identityLines(identity: Container['identities'][number], isColored: boolean): readonly string[] {
  const { delivers, entry, instance, place, spiffe_id: id, weaknesses = [] } = identity
  return [
    `  ${tinted(id, 'green', isColored)}  entry ${entry} (${place}), keys live as long as the ${instance}, delivers ${delivers.join(', ') || 'nothing'}`,
    ...weaknesses.map(
      ({ grade, message }) =>
        `    ${tinted(grade, grade === 'weak' ? 'yellow' : 'red', isColored)}: ${printable(message)}`,
    ),
  ]
}
