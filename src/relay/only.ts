/** What `holdfast exec --only` lets through: it narrows, and grants nothing. */
import { Fault } from '../base/fault.ts'
import type { Route } from '../egress/route.ts'
import { isHostName } from '../policy/parse.ts'

/** One `--only`: a target, and the method when one is named. */
export interface Only {
  readonly target: string
  readonly method: string | undefined
}

const METHOD = /^[A-Z][A-Z-]{0,31}$/

/** `TARGET` or `TARGET:METHOD`; throws usage. */
export function parseOnly(text: string): Only {
  const [target = '', method, ...more] = text.split(':')
  const isMethod = method === undefined || METHOD.test(method)
  if (isHostName(target) && isMethod && more.length === 0) return { target, method }
  throw new Fault('usage', `--only ${JSON.stringify(text)} is not TARGET or TARGET:METHOD`, {
    action: 'Write --only orders, or --only orders:GET, with the name of a target as in the policy.',
  })
}

/** Throws session_narrowed unless one of `onlys` names the request; none at all lets everything through. */
export function checkOnly(onlys: readonly Only[], method: string, { target }: Pick<Route, 'target'>): void {
  if (onlys.length === 0) return
  const isNamed = onlys.some((only) => only.target === target && (only.method ?? method) === method)
  if (isNamed) return
  const names = onlys.map((only) =>
    only.method === undefined ? only.target : `${only.target}:${only.method}`,
  )
  throw new Fault('session_narrowed', `${method} at ${target} is not let through, only ${names.join(', ')}`)
}
