/** What the verifier puts on record of what it is asked about. */
import { expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import type { Asker } from '../../../src/ingress/asker.ts'
import { NOBODY } from '../../../src/ingress/question.ts'
import { Verifier } from '../../../src/ingress/verifier.ts'
import { Revocations } from '../../../src/policy/revocations.ts'
import type { Route, RoutePlatform } from '../../../src/policy/route.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { AuditFolder } from '../../support/audit.ts'
import { openSignedCaller } from '../../support/signed-caller.ts'
import type { TestVerifier } from '../../support/verifier.ts'

const ASKER: Asker = { names: () => new Set(['unix:uid:7']), owner: () => undefined, facts: { uid: 7 } }

/** Over the route `mesh`, which ASKER may ask about. */
function verifierOf({ options, route }: TestVerifier, folder: AuditFolder): Verifier {
  const mesh = route('mesh')
  const platform = { ...mesh.platform, verifiers: ['unix:uid:7' as Selector] } as RoutePlatform
  const all = new Map<string, Route>([['mesh', { ...mesh, platform }]])
  const { clock } = options
  return new Verifier({
    ...options,
    routes: () => ({ all, exceptions: [], exceptionOf: () => undefined }),
    revocations: new Revocations(undefined, clock),
    audit: folder.open({ clock }),
    metrics: folder.metrics,
    subjects: () => Promise.reject(new Fault('bug')),
    policy: () => 'p-1',
  })
}

const BODY = Buffer.from('{"id":1}')

it.each([
  ['is shown', { whole: BODY, hasOctets: true, isRequired: false }, undefined],
  [
    'is not shown to its end',
    { whole: undefined, hasOctets: false, isRequired: false },
    /^the body is for the service to compare/,
  ],
  ['the asker has', undefined, /^the body is for the service to compare/],
])('a signed request whose body %s is on record as that', async (_what, body, detail) => {
  const folder = new AuditFolder()
  const { other, headers } = await openSignedCaller()
  const verifier = verifierOf(other, folder)
  const asked = {
    route: 'mesh',
    method: 'POST',
    path: '/x',
    query: '?a=1',
    peer: NOBODY,
    spiffeId: undefined,
  }
  const question = { ...asked, headers: headers(BODY).flat(), ...(body ? { body } : {}) }
  expect(await verifier.ask(ASKER, question)).toHaveProperty('answer')
  const record = folder.records().find(({ event }) => event === 'verify')
  expect(record).toMatchObject({ allowed: true, route: 'mesh' })
  if (detail) expect(record?.['detail']).toMatch(detail)
  else expect(record).not.toHaveProperty('detail')
})
