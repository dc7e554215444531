/** What is wrong with targets that the certificate of the connection binds requests to (RFC 8705), once files are joined. */
import type { Problem } from '../base/problem.ts'
import type { Place } from './entry.ts'
import type { IdentityStatement, Statements } from './statements.ts'

/** Problems of targets with `binding: [mtls]`; others have none here. */
export function mtlsConflicts({ identity, platform }: Statements): readonly Problem[] {
  const places = new Map(platform.map((target) => [target.name, target]))
  return identity
    .filter(({ binding }) => binding.includes('mtls'))
    .flatMap((target) => [
      ...identityProblems(target),
      ...platformProblems(target.name, places.get(target.name)),
    ])
}

function identityProblems({ name, binding, custody, server, place }: IdentityStatement): readonly Problem[] {
  return problems(name, place, [
    [binding.length > 1, 'binding: [mtls] stands alone'],
    [
      custody !== 'nothing',
      'only the agent can show the certificate, so that headers and tokens are of no use: set custody: nothing',
    ],
    [
      server?.client?.method === 'attest_jwt_client_auth_dpop',
      'attest_jwt_client_auth_dpop binds tokens by DPoP: use tls_client_auth or private_key_jwt',
    ],
  ])
}

function platformProblems(name: string, stated: Statements['platform'][number] | undefined) {
  if (!stated) return []
  const plain = stated.origins.find((origin) => !origin.startsWith('https:'))
  return problems(name, stated.place, [
    [plain !== undefined, `binding: [mtls] wants https, and ${plain} is not`],
  ])
}

function problems(
  name: string,
  place: Place,
  found: readonly (readonly [boolean, string])[],
): readonly Problem[] {
  return found.filter(([holds]) => holds).map(([, message]) => ({ ...place, message: `${name}: ${message}` }))
}
