/** Custom resources beside policy files: what each states, what is refused, and that nothing wrong ever widens. */
import { describe, expect, it } from 'vitest'
import { decide } from '../../../src/policy/decide.ts'
import { ClusterMemory, type ClusterState } from '../../../src/policy/kubernetes-book.ts'
import { isOurs } from '../../../src/policy/kubernetes-class.ts'
import { type ClusterObject, parseNamespace, parseObject } from '../../../src/policy/kubernetes-object.ts'
import { parsePolicy } from '../../../src/policy/load.ts'
import { canonicalUrl } from '../../../src/proof/target.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import {
  clusterPolicy,
  clusterSpiffeId,
  clusterStaticEntry,
  grant,
  namespace,
} from '../../support/custom-resources.ts'
import { context, LAYERS } from '../../support/policy.ts'

const POD = ['k8s:ns:shop', 'k8s:sa:cart', 'k8s:pod-label:app:web', 'k8s:pod-name:cart-1'] as const
const set = (selectors: readonly string[]) => new Set(selectors as readonly Selector[])
const NOTHING = { x509: false, jwt: false, wit: false }

type Json = Record<string, unknown>

function stateOf(objects: readonly Json[], over: Partial<ClusterState> = {}): ClusterState {
  const parsed = objects
    .map((object) => parseObject(object))
    .filter((each): each is ClusterObject => each !== undefined)
  return { objects: parsed, namespaces: undefined, condition: 'current', ...over }
}

/** The book of these objects beside `files`, and what became of each object. */
async function join(
  objects: readonly Json[],
  {
    memory = new ClusterMemory(),
    files = {},
    over = {},
    more = {},
  }: {
    memory?: ClusterMemory
    files?: Record<string, string>
    over?: Partial<ClusterState>
    more?: Json
  } = {},
) {
  let reports: readonly { isAccepted: boolean; message: string; object: ClusterObject }[] = []
  const cluster = {
    join: async (read: never, given: never) => {
      const joined = await memory.join(read, stateOf(objects, over), {
        ...(given as object),
        ...more,
      } as never)
      reports = joined.reports
      return joined
    },
  }
  const texts = Object.entries(files).map(([name, text]) => ({ file: `${name}.yaml`, text }))
  const result = await parsePolicy(texts, context, cluster as never)
  if ('problems' in result) throw new Error(JSON.stringify(result.problems))
  return {
    book: result.book,
    reports,
    refused: reports.filter(({ isAccepted }) => !isAccepted).map(({ message }) => message),
  }
}

const idsOf = async (objects: readonly Json[], selectors: readonly string[], options = {}) =>
  (await join(objects, options)).book.entriesFor(set(selectors)).map(({ spiffeId }) => spiffeId)

describe('ClusterSPIFFEID', () => {
  it('gives every pod an identity, and nothing that is no pod', async () => {
    expect(await idsOf([clusterSpiffeId('all')], POD)).toEqual(['spiffe://example.org/ns/shop/sa/cart'])
    expect(await idsOf([clusterSpiffeId('all')], ['unix:uid:0', 'k8s:sa:cart'])).toEqual([])
  })

  it('delivers nothing unless it says so, and says that', async () => {
    const { book, reports } = await join([
      clusterSpiffeId('all'),
      clusterSpiffeId('x', {
        deliver: { ...NOTHING, x509: true },
        podSelector: { matchLabels: { app: 'web' } },
      }),
    ])
    expect(reports.map(({ message }) => message)).toEqual([
      expect.stringContaining('deliver is not stated'),
      '',
    ])
    expect(book.entriesFor(set(POD)).map(({ deliver }) => deliver.x509)).toEqual([true])
    expect(book.entriesFor(set(['k8s:ns:shop', 'k8s:sa:cart'])).map(({ deliver }) => deliver.x509)).toEqual([
      false,
    ])
  })

  it.each([
    [{ matchLabels: { app: 'web' } }, true],
    [{ matchLabels: { app: 'api' } }, false],
    [{ matchExpressions: [{ key: 'app', operator: 'In', values: ['api', 'web'] }] }, true],
    [{ matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['web'] }] }, false],
    [{ matchExpressions: [{ key: 'tier', operator: 'NotIn', values: ['web'] }] }, true],
    [{ matchExpressions: [{ key: 'app', operator: 'Exists' }] }, true],
    [{ matchExpressions: [{ key: 'ap', operator: 'Exists' }] }, false],
    [{ matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }, false],
  ])('selects pods by %j: %s', async (podSelector, fits) => {
    expect(await idsOf([clusterSpiffeId('a', { podSelector })], POD)).toHaveLength(fits ? 1 : 0)
  })

  it.each([
    [{ matchLabels: { team: 'a' } }, true],
    [{ matchLabels: { 'kubernetes.io/metadata.name': 'shop' } }, true],
    [{ matchLabels: { team: 'b' } }, false],
    [{ matchExpressions: [{ key: 'team', operator: 'NotIn', values: ['a'] }] }, false],
    [{}, true],
  ])('selects namespaces by %j: %s', async (namespaceSelector, fits) => {
    const known = [namespace('shop', { team: 'a' }), namespace('other', { team: 'b' })]
    const namespaces = new Map(
      known.map((each) => parseNamespace(each)).map((each) => [each?.name ?? '', each?.labels ?? {}]),
    )
    expect(
      await idsOf([clusterSpiffeId('a', { namespaceSelector })], POD, { more: { namespaces } }),
    ).toHaveLength(fits ? 1 : 0)
  })

  it('asks for further selectors, with facts of the pod or without', async () => {
    const workloadSelectorTemplates = ['k8s:container-name:proxy', 'k8s:pod-name:{{ .PodMeta.Name }}']
    const object = clusterSpiffeId('a', { workloadSelectorTemplates })
    expect(await idsOf([object], [...POD, 'k8s:container-name:proxy'])).toHaveLength(1)
    expect(await idsOf([object], POD)).toEqual([])
  })

  it.each([
    [{ admin: true }, 'there is no SPIRE server'],
    [{ downstream: true }, 'there is no SPIRE server'],
    [{ autoPopulateDNSNames: true }, 'wanted dnsNameTemplates'],
    [{ ttl: '1y' }, 'wanted from 60s'],
    [{ ttl: '5s' }, 'wanted from 60s'],
    [{ spiffeIdTemplate: 'x' }, 'spiffeIDTemplate'],
    [{ spiffeIDTemplate: 'spiffe://other.org/{{ .PodMeta.Name }}' }, 'outside the trust domain'],
    [{ spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/{{ .ClusterName }}' }, 'does not name'],
    [{ workloadSelectorTemplates: ['k8s:nss:a'] }, 'no attestor makes'],
  ])('is refused with %j, and leaves the others alone', async (spec, why) => {
    const { book, refused } = await join([clusterSpiffeId('good'), clusterSpiffeId('bad', spec)])
    expect(refused).toEqual([expect.stringContaining(why)])
    expect(book.entriesFor(set(POD)).map(({ name }) => name)).toEqual(['ClusterSPIFFEID/good'])
  })

  it('cannot ask for the absence of a label that may be left out', async () => {
    const podSelector = { matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }
    const { refused } = await join([clusterSpiffeId('a', { podSelector })], { more: { allLabels: false } })
    expect(refused).toEqual([expect.stringContaining('kubernetes.pod_labels')])
  })

  it('of another class is somebody else’s', () => {
    const options = { className: 'holdfast', isDefaultClass: true }
    const of = (className?: string) =>
      isOurs(
        parseObject(clusterSpiffeId('a', className === undefined ? {} : { className })) as ClusterObject,
        options,
      )
    expect([of(), of('holdfast'), of('spire')]).toEqual([true, true, false])
  })
})

describe('an identity that pods of any namespace may get', () => {
  const loose = async (...objects: Json[]) =>
    (await join(objects)).book.weaknesses.filter(({ code }) => code === 'entry_any_namespace').length
  const named = 'spiffe://{{ .TrustDomain }}/web'
  const web = { podSelector: { matchLabels: { app: 'web' } } }

  it.each([
    ['by labels', { ...web, spiffeIDTemplate: named }, 1],
    ['by nothing', { spiffeIDTemplate: named }, 1],
    ['by a label in the template', { spiffeIDTemplate: `${named}/{{ index .PodMeta.Labels "app" }}` }, 1],
    ['by its service account alone', { spiffeIDTemplate: `${named}/{{ .PodSpec.ServiceAccountName }}` }, 1],
    [
      'by its own namespace, whichever that is',
      { spiffeIDTemplate: named, workloadSelectorTemplates: ['k8s:ns:{{ .PodMeta.Namespace }}'] },
      1,
    ],
    ['by one namespace', { ...web, spiffeIDTemplate: named, workloadSelectorTemplates: ['k8s:ns:shop'] }, 0],
    [
      'by labels of namespaces',
      { ...web, spiffeIDTemplate: named, namespaceSelector: { matchLabels: { team: 'a' } } },
      0,
    ],
    ['in a SPIFFE ID with its namespace', web, 0],
    ['in a SPIFFE ID with its UID', { spiffeIDTemplate: `${named}/{{ .PodMeta.UID }}` }, 0],
  ])('%s is graded weak or not', async (_what, spec, count) => {
    expect(await loose(clusterSpiffeId('a', spec))).toBe(count)
  })

  it.each([
    [['k8s:sa:cart'], 1],
    [['k8s:container-image:docker.io/app@sha256:1', 'unix:uid:0'], 1],
    [['k8s:ns:shop', 'k8s:sa:cart'], 0],
    [['k8s:pod-uid:0f9a1c2e-1111-4222-8333-444455556666'], 0],
    [['unix:uid:1000', 'systemd:id:a.service'], 0],
  ])('by %j is graded weak or not', async (selectors, count) => {
    const spec = { spiffeID: 'spiffe://example.org/a', selectors }
    expect(await loose(clusterStaticEntry('a', spec))).toBe(count)
  })
})

describe('an entry that tells images apart', () => {
  it.each([
    ['k8s:container-image:docker.io/app:1', 1],
    ['k8s:pod-image:app', 1],
    ['k8s:pod-init-image:app:latest', 1],
    [`k8s:container-image:docker.io/app@sha256:${'1'.repeat(64)}`, 0],
    [`k8s:container-image:sha256:${'1'.repeat(64)}`, 0],
    ['k8s:pod-image-count:1', 0],
  ])('by %s is graded weak or not', async (selector, count) => {
    const selectors = ['k8s:ns:shop', selector]
    const { book } = await join([clusterStaticEntry('a', { spiffeID: 'spiffe://example.org/a', selectors })])
    expect(book.weaknesses.filter(({ code }) => code === 'entry_image_tag')).toHaveLength(count)
  })
})

describe('a wrong object', () => {
  const good = clusterSpiffeId('a', { deliver: { x509: true, jwt: false, wit: false } })
  const bad = { ...good, spec: { ...(good['spec'] as Json), ttl: 'never' } }

  it('keeps what it stated before, and is forgotten with its object', async () => {
    const memory = new ClusterMemory()
    await join([good], { memory })
    const { book, refused } = await join([bad], { memory })
    expect(refused).toEqual([expect.stringContaining('stays in force')])
    expect(book.entriesFor(set(POD))).toHaveLength(1)
    await join([], { memory })
    expect((await join([bad], { memory })).book.entriesFor(set(POD))).toEqual([])
  })

  it('that was never right lets nobody fall back, and its template delivers nothing', async () => {
    const fallback = clusterSpiffeId('rest', {
      fallback: true,
      spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/rest',
    })
    const wide = clusterSpiffeId('wide', { deliver: { x509: true, jwt: true, wit: true } })
    const lost = clusterSpiffeId('narrow', { ttl: 'never', deliver: NOTHING })
    const { book } = await join([fallback, wide, lost])
    expect(book.entriesFor(set(POD)).map(({ deliver }) => deliver)).toEqual([NOTHING])
    expect((await join([fallback, lost])).book.entriesFor(set(POD))).toEqual([])
    expect((await join([fallback])).book.entriesFor(set(POD))).toHaveLength(1)
  })

  it('of layer security that was never right denies everything', async () => {
    const { book } = await join([clusterPolicy('s', { layer: 'security', deny: [{ target: 'orders' }] })], {
      files: LAYERS,
    })
    expect(book.denialOf('spiffe://example.org/web' as never, 'anything')?.why).toContain(
      'ClusterPolicy s is of layer security',
    )
  })

  it('that conflicts with an older one is left out, whichever was read first', async () => {
    const policy = (name: string) =>
      clusterPolicy(name, { layer: 'platform', targets: [{ name: 'x', origins: ['https://x.example.org'] }] })
    const [older, newer] = [policy('z-older'), policy('a-newer')]
    const { refused, reports } = await join([newer, older])
    expect(refused).toEqual([expect.stringContaining('target x twice')])
    expect(reports.find(({ isAccepted }) => !isAccepted)?.object.name).toBe('a-newer')
  })

  it('does not make files wrong', async () => {
    const policy = clusterPolicy('p', {
      layer: 'identity',
      targets: [{ name: 'orders', server: 'none', custody: 'token' }],
    })
    const { book, refused } = await join([policy], { files: LAYERS })
    expect(refused).toHaveLength(1)
    expect(book.targets.get('orders')?.identity?.custody).toBe('headers')
  })

  it.each([
    [
      {
        layer: 'identity',
        servers: [
          {
            name: 'as',
            issuer: 'https://as.example.org',
            client: { id: 'x', auth: 'private_key_jwt', key: { file: 'key.pem' } },
          },
        ],
      },
      'absolute path',
    ],
    [{ layer: 'root' }, 'wanted identity, platform, application or security'],
    [{}, 'layer is missing'],
  ])('ClusterPolicy %j is refused', async (spec, why) => {
    expect((await join([clusterPolicy('p', spec)])).refused).toEqual([expect.stringContaining(why)])
  })
})

describe('Grant', () => {
  const identity = `layer: identity
targets:
  - { name: orders, server: none, custody: headers, tokenless: true }
`
  const files = { identity, platform: LAYERS.platform }
  const CART = 'spiffe://example.org/ns/shop/sa/cart'
  const own = (over: Json = {}) =>
    grant('shop', 'orders', {
      targets: [
        { name: 'orders', grants: [{ callers: [CART], methods: ['GET'], paths: ['/orders/**'], ...over }] },
      ],
    })
  const decided = async (
    objects: readonly Json[],
    selectors: readonly string[] = POD,
    given: Record<string, string> = files,
  ) => {
    const { book, refused } = await join([clusterSpiffeId('all'), ...objects], { files: given })
    const [entry] = book.entriesFor(set(POD))
    if (!entry) throw new Error(refused.join())
    return decide(book, {
      door: 'headers',
      kind: 'dpop',
      method: 'GET',
      entry,
      spiffeId: entry.spiffeId,
      token: 'none',
      selectors: selectors as never,
      url: canonicalUrl('https://orders.example.org/orders/1'),
    })
  }

  it('allows its own pods what identity and platform have stated', async () => {
    expect((await decided([own()])).allowed).toBe(true)
    expect((await decided([])).allowed).toBe(false)
    expect((await decided([own()], POD, { identity })).allowed).toBe(false)
  })

  it('holds for no caller of the same SPIFFE ID that is not in its namespace', async () => {
    expect((await decided([own()], ['k8s:ns:other', 'k8s:sa:cart'])).allowed).toBe(false)
    expect((await decided([own()], [])).allowed).toBe(false)
  })

  it('stands beside those of other namespaces and of files', async () => {
    const other = grant('pay', 'orders', {
      targets: [
        {
          name: 'orders',
          grants: [{ callers: ['spiffe://example.org/ns/pay/**'], methods: ['POST'], paths: ['/**'] }],
        },
      ],
    })
    const application = LAYERS.application
    const { book, refused } = await join([own(), other], { files: { ...files, application } })
    expect(refused).toEqual([])
    expect(book.targets.get('orders')?.application?.grants).toHaveLength(3)
  })

  it.each([
    [{ callers: ['spiffe://example.org/ns/other/sa/cart'] }, 'is not of this namespace'],
    [{ callers: ['spiffe://example.org/ns/shopping/sa/cart'] }, 'is not of this namespace'],
    [{ callers: ['spiffe://example.org/ns/**'] }, 'is not of this namespace'],
    [{ callers: ['spiffe://example.org/**'] }, 'is not of this namespace'],
    [{ probe: true }, 'probe: true'],
    [{ custody: 'token' }, 'custody'],
  ])('with %j is refused', async (over, why) => {
    expect((await join([own(over)], { files })).refused).toEqual([expect.stringContaining(why)])
  })

  it.each([
    [{ layer: 'security', observe: { approver: 'me', until: '2099-01-01' } }, 'wanted targets'],
    [{ targets: [], routes: [] }, 'wanted targets'],
  ])('holds nothing but targets: %j', async (spec, why) => {
    expect((await join([grant('shop', 'x', spec)])).refused).toEqual([expect.stringContaining(why)])
  })
})

describe('the cluster as a whole', () => {
  const denial = clusterPolicy('deny', {
    layer: 'security',
    deny: [{ target: 'orders', reason: 'incident' }],
  })

  it('denies everything until it has been read once', async () => {
    const { book } = await join([], { files: LAYERS, over: { condition: 'unread' } })
    expect(book.isPartial).toBe(true)
    expect(book.denialOf('spiffe://example.org/web' as never, 'orders')?.why).toContain('not been read')
  })

  it('gives nothing any more when it has not been seen for too long, and goes on denying', async () => {
    const { book } = await join([clusterSpiffeId('all'), denial], { over: { condition: 'expired' } })
    expect(book.entriesFor(set(POD))).toEqual([])
    expect(book.denialOf('spiffe://example.org/web' as never, 'orders')?.why).toBe('incident')
  })

  it('has another hash when anything in force is another, and the same otherwise', async () => {
    const hashOf = async (...objects: Json[]) => (await join(objects)).book.hash
    const one = clusterStaticEntry('one', { spiffeID: 'spiffe://example.org/one', selectors: ['unix:uid:1'] })
    const touched = { ...one, metadata: { ...(one['metadata'] as Json), resourceVersion: '99' } }
    expect(await hashOf(one)).toBe(await hashOf(touched))
    expect(await hashOf(one)).not.toBe(await hashOf(one, denial))
  })
})
