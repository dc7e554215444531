/** What weakens a policy that is valid: shown by `policy check` and `status`, each with a grade. */
import type { Weakness } from './book.ts'
import type { Entry } from './entry.ts'
import type { Exception, TargetIdentity, TargetPlatform } from './grant.ts'
import { isSafeOrigin } from './parse.ts'
import { isMatchOfAny } from './pattern.ts'
import { isAudienceOf } from './reserved.ts'
import { kindOf } from './selector-kind.ts'
import { BEARER_TTL, type Named, type Statements } from './statements.ts'
import { podWeaknesses } from './weaknesses-pods.ts'

/** Kinds that only say which user a process runs as: every process of the user satisfies them. */
const USER_KINDS: ReadonlySet<string> = new Set([
  'unix:uid',
  'unix:user',
  'unix:gid',
  'unix:group',
  'unix:supplementary_gid',
  'unix:supplementary_group',
])

export function weaknessesOf(statements: Statements): readonly Weakness[] {
  return [
    ...statements.entries.flatMap((entry) => entryWeaknesses(entry, statements.identity)),
    ...statements.templates.flatMap(({ selectors, settings }) =>
      entryWeaknesses({ ...settings, selectors }, statements.identity),
    ),
    ...podWeaknesses(statements),
    ...statements.identity.flatMap(identityWeaknesses),
    ...certificateWeaknesses(statements),
    ...statements.platform.flatMap(platformWeaknesses),
    ...statements.exceptions.map(exceptionWeakness),
    ...statements.application.flatMap(({ name, grants }) =>
      grants
        .filter(({ isProbe }) => isProbe)
        .map(
          ({ place }): Weakness => ({
            code: 'probe',
            grade: 'weak',
            subject: name,
            message: 'the replay lab may have tokens that are bound to keys of its own',
            place,
          }),
        ),
    ),
    ...statements.observe.map(
      ({ approver, until, place }): Weakness => ({
        code: 'observe',
        grade: 'weak',
        subject: 'policy',
        message: `refusals are not carried out until ${new Date(until * 1000).toISOString()}, approved by ${approver}`,
        place,
      }),
    ),
  ]
}

function entryWeaknesses(
  entry: Omit<Entry, 'spiffeId' | 'dnsNames'>,
  targets: readonly Named<TargetIdentity>[],
): readonly Weakness[] {
  const found: Weakness[] = []
  const add = (code: string, grade: Weakness['grade'], message: string) =>
    found.push({ code, grade, subject: entry.name, message, place: entry.place })
  if (entry.selectors.length > 0 && entry.selectors.every((selector) => USER_KINDS.has(kindOf(selector)))) {
    add('entry_uid_only', 'weak', 'any process of the user or group gets this identity')
  }
  const delivered = (['x509', 'jwt', 'wit'] as const).filter((kind) => entry.deliver[kind])
  if (delivered.length > 0) {
    add(
      'deliver',
      'weak',
      `what leaves the agent can be copied from the application: ${delivered.join(', ')}`,
    )
  }
  for (const { name, server } of entry.deliver.jwt ? targets : []) {
    const accepted = server && entry.audiences.find((audience) => isAudienceOf(server, audience))
    if (accepted !== undefined) {
      const what = `its JWT-SVID for ${accepted} is a bearer credential at the authorization server of ${name}`
      add('deliver_and_sign', entry.acceptedAt.includes(server?.issuer ?? '') ? 'weak' : 'insecure', what)
    }
  }
  for (const issuer of entry.acceptedAt) {
    add('accepted_at', 'weak', `${issuer} may take what it delivers as client credential: custody ends there`)
  }
  return found
}

function identityWeaknesses(target: Named<TargetIdentity>): readonly Weakness[] {
  const found: Weakness[] = []
  const add = (code: string, message: string) =>
    found.push({ code, grade: 'weak', subject: target.name, message, place: target.place })
  if (target.hashOnly)
    add('hash_only', 'the agent signs for tokens it has not seen: it cannot check whose they are')
  if (target.tokenless) add('tokenless', 'the agent signs without a token: proofs are bound to none')
  if (target.tooLong === 'revoke')
    add(
      'too_long',
      `tokens that live longer than ${target.maxTtl}s are used and then revoked: one whose revocation fails, or whose agent ends, lives on`,
    )
  return found
}

/** Where a certificate is all that a target asks for, one that is delivered needs no agent. */
function certificateWeaknesses({ entries, identity, application }: Statements): readonly Weakness[] {
  const open = new Set(
    identity
      .filter(({ binding, server }) => binding.includes('mtls') && !server?.client)
      .map(({ name }) => name),
  )
  const granted = application.filter(({ name }) => open.has(name))
  return entries
    .filter((entry) => entry.deliver.x509)
    .flatMap((entry) => {
      const isGranted = (callers: readonly string[]) => isMatchOfAny(callers, entry.spiffeId)
      const target = granted.find(({ grants }) => grants.some(({ callers }) => isGranted(callers)))
      if (!target) return []
      const message = `its X.509-SVID is all that ${target.name} asks for: whoever copies it calls there without the agent`
      return [
        { code: 'deliver_and_sign', grade: 'insecure', subject: entry.name, message, place: entry.place },
      ]
    })
}

function platformWeaknesses(target: Named<TargetPlatform>): readonly Weakness[] {
  const open = target.origins.filter((origin) => !isSafeOrigin(origin))
  return open.map((origin) => ({
    code: 'http',
    grade: 'insecure',
    subject: target.name,
    message: `${origin} is plain HTTP: tokens can be read on the way`,
    place: target.place,
  }))
}

function exceptionWeakness({ target, approver, until, maxTtl, place }: Exception): Weakness {
  const end = new Date(until * 1000).toISOString()
  return {
    code: 'bearer',
    grade: maxTtl > BEARER_TTL ? 'insecure' : 'weak',
    subject: target,
    message: `a stolen token works anywhere, for up to ${maxTtl}s; until ${end}, approved by ${approver}`,
    place,
  }
}
