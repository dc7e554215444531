/** Conditions of grants. */
import { Fault } from '../base/fault.ts'
import type { When } from './grant.ts'

export function compileWhen(_source: string): When {
  throw new Fault('policy_invalid', 'conditions are not supported')
}
