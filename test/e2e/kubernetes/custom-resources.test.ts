/** Custom resources at a real API server: schemas, admission, rights, and how an agent follows them. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { systemClock } from '../../../src/base/clock.ts'
import type { RuleBook } from '../../../src/policy/book.ts'
import { ClusterPolicySource } from '../../../src/policy/kubernetes-source.ts'
import { loadPolicy } from '../../../src/policy/load.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { ROOT } from '../../support/built-agent.ts'
import type { Api, Json } from '../../support/cluster/api.ts'
import { type ControlPlane, openControlPlane } from '../../support/cluster/control-plane.ts'
import { type Node, openNode } from '../../support/cluster/node.ts'
import { missingForCluster } from '../../support/cluster/parts.ts'
import { makePki } from '../../support/cluster/pki.ts'
import { context } from '../../support/policy.ts'
import { until } from '../../support/until.ts'

const missing = missingForCluster()
const CHART = join(ROOT, 'deploy/helm/holdfast')
const GROUP = '/apis/holdfast.dev/v1alpha1'
const TEMPLATE =
  'spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}'
const AGENT = 'system:serviceaccount:holdfast-system:holdfast-agent'

if (missing) {
  console.warn(`SKIPPED: custom resources at a real API server need ${missing}`)
  it.skip('custom resources at a real API server', () => {})
} else describe('custom resources', suite)

/** A template of the chart with the values that a test needs: none of those read here branches on more. */
function rendered(file: string): readonly Json[] {
  const text = readFileSync(join(CHART, 'templates', file), 'utf8')
    .replace(/\{\{-? include "holdfast\.labels" .*\}\}/g, 'app: holdfast')
    .replace(/\{\{ include "holdfast\.name" \. \}\}/g, 'holdfast-agent')
    .replace(/\{\{ \.Release\.Namespace \}\}/g, 'holdfast-system')
    .replace(/^\s*\{\{-? (?:if|end).*\}\}\n/gm, '')
  return parseAllDocuments(text).map((document) => document.toJS() as Json)
}

function suite(): void {
  let node: Node
  let plane: ControlPlane
  let api: Api
  let source: ClusterPolicySource
  let book: RuleBook
  const faults: string[] = []

  const make = (kind: string, name: string, spec: Json, space = '') =>
    api.call('POST', `${GROUP}${space === '' ? '' : `/namespaces/${space}`}/${kind}`, {
      apiVersion: 'holdfast.dev/v1alpha1',
      kind: {
        clusterspiffeids: 'ClusterSPIFFEID',
        clusterstaticentries: 'ClusterStaticEntry',
        clusterpolicies: 'ClusterPolicy',
        grants: 'Grant',
      }[kind],
      metadata: { name },
      spec,
    })
  const grants = (caller: string) => ({
    targets: [{ name: 'orders', grants: [{ callers: [caller], methods: ['GET'], paths: ['/**'] }] }],
  })
  const entries = (...selectors: string[]) =>
    book.entriesFor(new Set(selectors as readonly string[] as readonly Selector[]))

  beforeAll(async () => {
    node = await openNode()
    const pki = makePki(join(node.dir, 'pki'))
    plane = await openControlPlane(node, pki)
    api = plane.api
    for (const name of ['holdfast-system', 'shop', 'pay'])
      await api.ask('POST', '/api/v1/namespaces', { metadata: { name } })
    await api.ask('POST', '/api/v1/namespaces/holdfast-system/serviceaccounts', {
      metadata: { name: 'holdfast-agent' },
    })
    for (const file of readdirSync(join(CHART, 'crds'))) {
      const answer = await api.apply(parse(readFileSync(join(CHART, 'crds', file), 'utf8')) as Json)
      if (answer.status > 299) throw new Error(`${file}: ${JSON.stringify(answer.body)}`)
    }
    for (const object of rendered('grants.yaml')) {
      const plural =
        object.kind === 'ValidatingAdmissionPolicy'
          ? 'validatingadmissionpolicies'
          : 'validatingadmissionpolicybindings'
      await api.ask('POST', `/apis/admissionregistration.k8s.io/v1/${plural}`, object)
    }
    for (const object of rendered('rbac.yaml')) {
      if (!/^ClusterRole(?:Binding)?$/.test(object.kind)) continue
      await api.ask('POST', `/apis/rbac.authorization.k8s.io/v1/${object.kind.toLowerCase()}s`, object)
    }
    await until('the kinds', async () => (await api.call('GET', `${GROUP}/grants`)).status === 200, 30_000)
    const asked = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: 3600 },
    }
    const token = await api.ask(
      'POST',
      '/api/v1/namespaces/holdfast-system/serviceaccounts/holdfast-agent/token',
      asked,
    )
    writeFileSync(join(node.dir, 'token'), token.status.token)
    source = new ClusterPolicySource({
      url: plane.url,
      caFile: pki.caFile,
      tokenFile: join(node.dir, 'token'),
      clock: systemClock,
      maxAge: 3600,
      className: 'holdfast',
      isDefaultClass: true,
      allLabels: true,
      writesStatus: true,
    })
    source.start()
    expect(await source.seen(20_000)).toBe(true)
    const load = async () => {
      book = await loadPolicy([], context, source)
    }
    await load()
    source.attach({
      onChange: () => void load(),
      onFault: (fault) => fault && faults.push(fault.message),
      onReports: () => {},
    })
  }, 180_000)

  afterAll(async () => {
    source?.stop()
    await node?.[Symbol.asyncDispose]()
  })

  it('give pods identities, and say that they were accepted', async () => {
    expect((await make('clusterspiffeids', 'all', { spiffeIDTemplate: TEMPLATE })).status).toBe(201)
    await until('the entry', () => entries('k8s:ns:shop', 'k8s:sa:cart').length === 1)
    expect(entries('k8s:ns:shop', 'k8s:sa:cart')[0]?.spiffeId).toBe('spiffe://example.org/ns/shop/sa/cart')
    const condition = async () =>
      (await api.ask('GET', `${GROUP}/clusterspiffeids/all`)).status?.conditions?.[0]
    await until('the condition', async () => (await condition())?.status === 'True')
    expect((await condition()).message).toContain('deliver is not stated')
  })

  it.each([
    ['clusterspiffeids', { spiffeIDTemplate: TEMPLATE, admin: true }, 'no SPIRE server'],
    ['clusterspiffeids', { spiffeIDTemplate: '/a' }, 'spiffeIDTemplate'],
    ['clusterspiffeids', { spiffeIDTemplate: TEMPLATE, autoPopulateDNSNames: true }, 'dnsNameTemplates'],
    ['clusterspiffeids', { spiffeIDTemplate: TEMPLATE, ttl: '1y' }, 'ttl'],
    [
      'clusterstaticentries',
      { spiffeID: 'spiffe://example.org/a', selectors: ['unix:uid:1'], parentID: 'spiffe://example.org/n' },
      'parentID',
    ],
    ['clusterstaticentries', { spiffeID: 'spiffe://example.org/a/../b', selectors: [] }, 'selectors'],
    ['clusterpolicies', { layer: 'root' }, 'layer'],
  ])('%s %j is refused by the API server', async (kind, spec, why) => {
    const { status, body } = await make(kind, 'wrong', spec)
    expect([status, body.message]).toEqual([422, expect.stringContaining(why)])
  })

  it('let a namespace grant what concerns its own workloads only', async () => {
    await until(
      'the admission policy',
      async () =>
        (await make('grants', 'other', grants('spiffe://example.org/ns/pay/sa/x'), 'shop')).status === 422,
      30_000,
    )
    expect(
      (await make('grants', 'near', grants('spiffe://example.org/ns/shopping/sa/x'), 'shop')).status,
    ).toBe(422)
    expect((await make('grants', 'own', grants('spiffe://example.org/ns/shop/sa/cart'), 'shop')).status).toBe(
      201,
    )
    await until('the grant', () => book.targets.get('orders')?.application?.grants.length === 1)
  })

  it('that only an agent can find wrong are told so in their status', async () => {
    await make('clusterpolicies', 'wrong', {
      layer: 'platform',
      targets: [{ name: 'a', origins: ['ftp://x'] }],
    })
    const condition = async () =>
      (await api.ask('GET', `${GROUP}/clusterpolicies/wrong`)).status?.conditions?.[0]
    await until('the condition', async () => (await condition())?.status === 'False')
    expect(entries('k8s:ns:shop', 'k8s:sa:cart')).toHaveLength(1)
  })

  it('are read with rights for nothing else', async () => {
    const may = async (verb: string, resource: string, group = 'holdfast.dev', subresource = '') => {
      const resourceAttributes = { verb, resource, group, subresource }
      const review = {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: { user: AGENT, resourceAttributes },
      }
      return (await api.ask('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', review)).status
        .allowed
    }
    expect(await may('watch', 'grants')).toBe(true)
    expect(await may('update', 'clusterpolicies')).toBe(false)
    expect(await may('patch', 'grants')).toBe(false)
    expect(await may('get', 'secrets', '')).toBe(false)
    expect(await may('list', 'pods', '')).toBe(false)
  })

  it('survive an outage of the API server', async () => {
    await plane.stop()
    await until('the fault', () => faults.length > 0, 60_000)
    expect(entries('k8s:ns:shop', 'k8s:sa:cart')).toHaveLength(1)
    await plane.start()
    expect(
      (
        await make('clusterstaticentries', 'late', {
          spiffeID: 'spiffe://example.org/late',
          selectors: ['unix:uid:77'],
        })
      ).status,
    ).toBe(201)
    await until('what was stated afterwards', () => entries('unix:uid:77').length === 1, 60_000)
  }, 120_000)
}
