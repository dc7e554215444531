/** Whose objects are whose, where several controllers read one cluster (className of spire-controller-manager). */
import { type ClusterObject, record } from './kubernetes-object.ts'

export interface ClassOptions {
  readonly className: string
  readonly isDefaultClass: boolean
}

/** Whether `object` is for agents of this class; grants and policies have none. */
export function isOurs({ kind, spec }: ClusterObject, { className, isDefaultClass }: ClassOptions): boolean {
  if (kind === 'Grant' || kind === 'ClusterPolicy') return true
  const stated = record(spec)['className']
  return stated === undefined || stated === '' ? isDefaultClass : stated === className
}
