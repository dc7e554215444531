/** What a target cannot say of its tokens: what becomes of long ones, and where its metadata is. */
import type { Problem } from '../base/problem.ts'
import type { IdentityStatement, Statements } from './statements.ts'

/** Problems of `too_long` and `discover`. */
export function tokenConflicts({ identity, platform }: Statements): readonly Problem[] {
  const places = new Map(platform.map((target) => [target.name, target]))
  return identity.flatMap((target) => [
    ...tooLongProblems(target),
    ...discoverProblems(target, places.get(target.name)),
  ])
}

function tooLongProblems({ name, tooLong, server, custody, binding, place }: IdentityStatement) {
  if (tooLong !== 'revoke') return []
  return problemsOf(`${name}: too_long: revoke`, place, [
    [!server?.client, 'is about tokens that the agent gets itself: state a server with a client'],
    [custody === 'token', 'is not for tokens that applications hold: set custody: headers or nothing'],
    [binding.includes('bearer'), 'is not for bearer tokens: their life is what security accepts'],
  ])
}

type Platform = Statements['platform'][number] | undefined

function discoverProblems({ name, isDiscovered, server, place }: IdentityStatement, platform: Platform) {
  if (!isDiscovered) return []
  const origin = platform?.origins[0]
  return problemsOf(`${name}: discover: true`, place, [
    [!server?.client, 'is looked at before the agent gets a token: state a server with a client'],
    [
      origin !== undefined && (!origin.startsWith('https://') || origin.endsWith(':*')),
      `wants an https origin with one port first in the origins of the target, not ${origin}`,
    ],
    [platform?.via === 'sidecar', 'is asked for by the agent, and the target is reached via: sidecar'],
  ])
}

function problemsOf(
  what: string,
  place: IdentityStatement['place'],
  refused: readonly (readonly [boolean, string])[],
): readonly Problem[] {
  return refused
    .filter(([holds]) => holds)
    .map(([, message]) => ({ ...place, message: `${what} ${message}` }))
}
