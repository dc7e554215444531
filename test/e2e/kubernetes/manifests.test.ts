/** `policy check` beside a real API server: what that refuses of a custom resource, the check has refused before. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parse } from 'yaml'
import { reviewPolicy } from '../../../src/policy/check.ts'
import { readManifests } from '../../../src/policy/manifests.ts'
import { ROOT } from '../../support/built-agent.ts'
import type { Api, Json } from '../../support/cluster/api.ts'
import { openControlPlane } from '../../support/cluster/control-plane.ts'
import { type Node, openNode } from '../../support/cluster/node.ts'
import { missingForCluster } from '../../support/cluster/parts.ts'
import { makePki } from '../../support/cluster/pki.ts'
import { clusterPolicy, clusterSpiffeId, clusterStaticEntry, grant } from '../../support/custom-resources.ts'
import { CHART, parseManifests } from '../../support/manifests.ts'
import { context } from '../../support/policy.ts'
import { until } from '../../support/until.ts'

const GROUP = '/apis/holdfast.dev/v1alpha1'
const PLURALS: Readonly<Record<string, string>> = {
  ClusterSPIFFEID: 'clusterspiffeids',
  ClusterStaticEntry: 'clusterstaticentries',
  ClusterPolicy: 'clusterpolicies',
  Grant: 'namespaces/shop/grants',
}

/** One of each kind, with every member that its definition has. */
const common = {
  hint: 'main',
  federatesWith: ['other.org'],
  className: 'holdfast',
  admin: false,
  downstream: false,
  deliver: { x509: true, jwt: false, wit: false },
  instance: 'pod',
  audiences: ['a'],
  acceptedAt: ['https://as.example.org'],
}
const selector = {
  matchLabels: { app: 'web' },
  matchExpressions: [{ key: 'a', operator: 'In', values: ['b'] }],
}
const WHOLE: readonly Json[] = [
  clusterSpiffeId('ids', {
    ...common,
    namespaceSelector: selector,
    podSelector: selector,
    workloadSelectorTemplates: ['k8s:container-name:app'],
    dnsNameTemplates: ['{{ .PodMeta.Name }}.example.org'],
    ttl: '1h',
    jwtTtl: '5m',
    fallback: false,
    autoPopulateDNSNames: false,
  }),
  clusterStaticEntry('entry', {
    ...common,
    spiffeID: 'spiffe://example.org/exporter',
    selectors: ['k8s:ns:monitoring'],
    x509SVIDTTL: '1h',
    jwtSVIDTTL: '5m',
    dnsNames: ['a.example.org'],
    storeSVID: false,
  }),
  clusterPolicy('policy', {
    layer: 'platform',
    targets: [{ name: 'orders', origins: ['https://orders.example.org'] }],
  }),
  grant('shop', 'grant', {
    targets: [
      {
        name: 'orders',
        grants: [
          {
            name: 'read',
            callers: ['spiffe://example.org/ns/shop/sa/cart'],
            methods: ['GET'],
            paths: ['/**'],
            when: 'first_use',
            approval: { on: 'always', wait: '1m' },
            hook: false,
            signed_headers: ['x-a'],
          },
        ],
      },
    ],
  }),
]

const WRONG: readonly unknown[] = [7, true, '', 'x', 'X'.repeat(5_000), [], {}, null, [7], ['']]

/** Every path into `value`, objects and lists before what is in them. */
function pathsIn(value: unknown, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (typeof value !== 'object' || value === null) return [path]
  return [
    path,
    ...Object.entries(value).flatMap(([key, below]) =>
      pathsIn(below, [...path, Array.isArray(value) ? Number(key) : key]),
    ),
  ]
}

/** `object` with what is at `path` changed. */
function changed(
  object: Json,
  path: readonly (string | number)[],
  change: (holder: Json, key: string | number) => void,
): Json {
  const copy = structuredClone(object)
  const holder = path.slice(0, -1).reduce((value, key) => value[key], copy)
  change(holder, path.at(-1) ?? '')
  return copy
}

function* mutations(object: Json): Generator<readonly [string, Json]> {
  for (const path of pathsIn(object.spec, ['spec'])) {
    const at = path.join('.')
    yield [
      `${at} gone`,
      changed(object, path, (holder, key) =>
        Array.isArray(holder) ? holder.splice(Number(key), 1) : delete holder[key],
      ),
    ]
    for (const value of WRONG)
      yield [
        `${at} = ${JSON.stringify(value)?.slice(0, 16)}`,
        changed(object, path, (holder, key) => {
          holder[key] = value
        }),
      ]
    yield [
      `${at} with more`,
      changed(object, path, (holder, key) => {
        const value = holder[key]
        if (Array.isArray(value)) holder[key] = Array.from({ length: 300 }, () => value[0])
        else if (typeof value === 'object') holder[key] = { ...value, unknown: 'x' }
        else holder[key] = `${value}\n`
      }),
    ]
  }
}

const missing = missingForCluster()
if (missing) {
  console.warn(`SKIPPED: Kubernetes needs ${missing}`)
  it.skip('Kubernetes runs on real parts', () => {})
} else {
  let node: Node
  let api: Api

  beforeAll(async () => {
    node = await openNode()
    api = (await openControlPlane(node, makePki(join(node.dir, 'pki')))).api
    await api.ask('POST', '/api/v1/namespaces', { metadata: { name: 'shop' } })
    for (const file of readdirSync(join(CHART, 'crds')))
      expect((await api.apply(parse(readFileSync(join(CHART, 'crds', file), 'utf8')))).status).toBeLessThan(
        300,
      )
    await until('the kinds', async () => (await api.call('GET', `${GROUP}/grants`)).status === 200, 30_000)
  }, 120_000)
  afterAll(() => node?.[Symbol.asyncDispose](), 60_000)

  const strip = ({ metadata: { name, namespace }, ...rest }: Json) => ({
    ...rest,
    metadata: namespace ? { name, namespace } : { name },
  })
  const byServer = async (object: Json) => {
    const place = `${GROUP}/${PLURALS[object.kind]}?dryRun=All&fieldValidation=Strict`
    const { status, body } = await api.call('POST', place, object)
    return status < 300 ? '' : String(body.message)
  }
  const byCheck = async (object: Json) => {
    const manifests = await readManifests([{ file: 'x.yaml', text: JSON.stringify(object) }])
    const options = { manifests, className: 'holdfast', isDefaultClass: true, allLabels: true }
    const { problems, objects } = await reviewPolicy([], context, options)
    return [...problems, ...objects.flatMap((each) => each.problems)].map(({ message }) => message).join('; ')
  }

  it.each(WHOLE.map((object) => [object.kind, strip(object)]))(
    'a whole %s is right for both',
    async (_kind, object) => {
      expect([await byServer(object), await byCheck(object)]).toEqual(['', ''])
    },
  )

  it('the objects of the examples are right for the API server', async () => {
    const text = readFileSync(join(ROOT, 'deploy/examples/kubernetes/custom-resources.yaml'), 'utf8')
    const said = await Promise.all(parseManifests(text).map(byServer))
    expect(said).toEqual(['', '', '', ''])
  })

  it.each(WHOLE.map((object) => [object.kind, strip(object)]))(
    'no %s passes the check that the API server refuses',
    async (_kind, object) => {
      const passed: string[] = []
      let refused = 0
      for (const [what, wrong] of mutations(object)) {
        const said = await byServer(wrong)
        if (said === '') continue
        refused += 1
        if ((await byCheck(wrong)) === '') passed.push(`${what}: ${said}`)
      }
      expect(passed).toEqual([])
      expect(refused).toBeGreaterThan(20)
    },
    120_000,
  )
}
