/** Which route a path is of: the longest prefix, and none where servers may read the path as one of another. */
import { expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { routeAskedFor } from '../../../src/ingress/asker.ts'
import { makeVerifier } from '../../../src/verify/create.ts'
import { ManualClock } from '../../support/clock.ts'
import { bookOf, LAYERS } from '../../support/policy.ts'

const NAMES = new Set(['unix:uid:7'])
const PLATFORM = `${LAYERS.platform}routes:
  - { name: all, origins: ["https://a.example.org"], received: /v1, verifiers: ["unix:uid:7"] }
  - { name: admin, origins: ["https://a.example.org"], received: /v1/Admin, verifiers: ["unix:uid:7"] }
  - { name: others, origins: ["https://a.example.org"], received: /v1/others, verifiers: ["unix:uid:8"] }
`

const PATHS: readonly (readonly [path: string, route: string])[] = [
  ['/v1/items', 'all'],
  ['/v1//items', 'all'],
  ['/v1/administration', 'all'],
  ['/v1/Admin', 'admin'],
  ['/v1/Admin/x', 'admin'],
  ['/v1/Admin//x', 'admin'],
  ['/v1/admin', 'url_refused'],
  ['/v1/ADMIN/x', 'url_refused'],
  ['/v1//Admin/x', 'url_refused'],
  ['/v1///admin', 'url_refused'],
]

it.each(PATHS)('%s is of %s', async (path, wanted) => {
  const { routes } = await bookOf({ platform: PLATFORM }, {})
  const found = () => {
    try {
      return routeAskedFor(routes, { route: undefined, path }, NAMES).name
    } catch (error) {
      return Fault.from(error).reason
    }
  }
  expect(found()).toBe(wanted)
})

it('what others ask about makes no path doubtful', async () => {
  const { routes } = await bookOf({ platform: PLATFORM }, {})
  expect(routeAskedFor(routes, { route: undefined, path: '/v1/OTHERS' }, NAMES).name).toBe('all')
})

it.each(PATHS)('%s is of %s in the middleware', async (path, wanted) => {
  const heard: (string | undefined)[] = []
  const route = (name: string, received: string) => ({
    name,
    received,
    origins: ['https://a.example.org'],
    grants: [],
  })
  const verifier = makeVerifier(
    {
      routes: [route('all', '/v1'), route('admin', '/v1/Admin')],
      onRefused: (fault, facts) => heard.push(facts.route ?? fault.reason),
    },
    new ManualClock(),
  )
  const { status } = await verifier.fetchHandler(() => new Response())(new Request(`https://x${path}`))
  expect([heard, status]).toEqual([[wanted], wanted === 'url_refused' ? 400 : 401])
  verifier.close()
})
