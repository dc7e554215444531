/** `policy check` of custom resources: joined with policy files as the agent does, each refusal with file and line. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { yaml } from '../../../src/base/yaml-library.ts'
import { checkFiles, testFiles } from '../../../src/cli/policy.ts'
import { CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY } from '../../../src/policy/kubernetes-schema.ts'
import { keptIo } from '../../support/io.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const write = (name: string, text: string) => {
  const file = join(dir, name)
  writeFileSync(file, text)
  return file
}

/** What the command says of these files, without their directory, and its code. */
async function checked(files: Readonly<Record<string, string>>, options = {}) {
  const paths = Object.entries(files).map(([name, text]) => write(name, text))
  const io = keptIo()
  const code = await checkFiles(paths, { trustDomain: 'example.org', ...options }, io)
  return { code, out: io.written.out.replaceAll(`${dir}/`, '') }
}

const IDS = `# The default.
apiVersion: holdfast.dev/v1alpha1
kind: ClusterSPIFFEID
metadata: { name: all, creationTimestamp: null }
spec:
  spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
  podSelector: { matchLabels: { app: web } }
  deliver: { x509: false, jwt: false, wit: false }
`
const ENTRY = `apiVersion: holdfast.dev/v1alpha1
kind: ClusterStaticEntry
metadata:
  name: node-exporter
spec:
  spiffeID: spiffe://example.org/exporter
  selectors: [k8s:ns:monitoring, k8s:sa:exporter]
`
const CEILING = `apiVersion: holdfast.dev/v1alpha1
kind: ClusterPolicy
metadata: { name: orders-identity }
spec:
  layer: identity
  targets:
    - { name: orders, server: none, custody: headers, tokenless: true }
`
const GRANT = `apiVersion: holdfast.dev/v1alpha1
kind: Grant
metadata: { name: orders, namespace: shop }
spec:
  targets:
    - name: orders
      grants:
        - { callers: [spiffe://example.org/ns/shop/sa/cart], methods: [GET], paths: [/orders/**] }
`
const PLATFORM = 'layer: platform\ntargets:\n  - { name: orders, origins: ["https://orders.example.org"] }\n'
const CASES = `layer: application
tests:
  - name: the cart reads
    spiffe_id: spiffe://example.org/ns/shop/sa/cart
    selectors: [k8s:ns:shop, k8s:sa:cart, k8s:pod-label:app:web]
    method: GET
    url: https://orders.example.org/orders/1
    token: none
    expect: allow
`
const all = [IDS, ENTRY, CEILING, GRANT].join('---\n')

describe('custom resources that are right', () => {
  it('join policy files', async () => {
    const { code, out } = await checked({ 'all.yaml': all, 'platform.yaml': PLATFORM })
    expect(out).toMatch(/^valid: 2 files, 4 objects, 1 entry, 1 template, 1 target, policy [0-9a-f]{16}\n/)
    expect(out).toContain('all.yaml:11: ClusterStaticEntry node-exporter: deliver is not stated')
    expect(out).toContain('all.yaml:19: orders: the agent signs without a token')
    expect(code).toBe(0)
  })

  it('may be a list, in YAML or as JSON, beside objects of others', async () => {
    const items = [IDS, ENTRY, CEILING, GRANT].map((text) => yaml.parse(text))
    const list = JSON.stringify({ kind: 'List', apiVersion: 'v1', items })
    const others = 'kind: Service\napiVersion: v1\nmetadata: { name: x }\n---\n# nothing\n---\n'
    const spire = IDS.replace('holdfast.dev/v1alpha1', 'spire.spiffe.io/v1alpha1')
    const { code, out } = await checked({
      'list.yaml': list,
      'platform.yaml': PLATFORM,
      'o.yaml': others + spire,
    })
    expect(out).toMatch(/^valid: 3 files, 4 objects/)
    expect(out).toContain(
      'other kinds are not read: 1 Service, 1 ClusterSPIFFEID of spire.spiffe.io/v1alpha1',
    )
    expect(code).toBe(0)
  })

  it('stand beside the policy that a configuration names, by its settings', async () => {
    write('platform.yaml', PLATFORM)
    const text = 'trust_domain: example.org\npolicy: { files: [platform.yaml] }\n'
    const config = write(
      'holdfast.yaml',
      `${text}kubernetes: { resources: { class_name: a, classless: false } }\n`,
    )
    const { code, out } = await checked({ 'all.yaml': all }, { config, trustDomain: undefined })
    expect(out).toMatch(/^valid: 2 files, 2 objects, 0 entries, 1 target/)
    expect(out).toContain('ClusterSPIFFEID all is of another class')
    expect(code).toBe(0)
  })

  it('make the identities that tests ask for', async () => {
    const files = [write('all.yaml', all), write('platform.yaml', PLATFORM), write('tests.yaml', CASES)]
    const io = keptIo()
    expect(await testFiles(files, {}, io)).toBe(0)
    expect(io.written.out).toContain('1 passed, 0 failed')
    write('all.yaml', all.replace('paths: [/orders/**]', 'paths: [/other/**]'))
    expect(await testFiles(files, {}, keptIo())).toBe(1)
  })

  it('select namespaces by the labels that the files have, and only those', async () => {
    const team = IDS.replace(
      'podSelector: { matchLabels: { app: web } }',
      'namespaceSelector: { matchLabels: { team: a } }',
    )
    const namespace = 'apiVersion: v1\nkind: Namespace\nmetadata: { name: shop, labels: { team: a } }\n'
    const files = [
      write('x.yaml', [team, CEILING, GRANT].join('---\n')),
      write('p.yaml', PLATFORM),
      write('t.yaml', CASES),
    ]
    expect(await testFiles(files, {}, keptIo())).toBe(1)
    const { out } = await checked({ 'x.yaml': [team, CEILING, GRANT].join('---\n') })
    expect(out).toContain(
      'no file has a Namespace: the namespaceSelector of ClusterSPIFFEID all selects none',
    )
    expect(await testFiles([...files, write('n.yaml', namespace)], {}, keptIo())).toBe(0)
  })

  it('are graded: an identity that pods of any namespace may get', async () => {
    const entry = ENTRY.replace('k8s:ns:monitoring, ', '')
    const { code, out } = await checked({ 'x.yaml': entry }, { failOn: 'warn' })
    expect(out).toContain('! weak x.yaml:2: ClusterStaticEntry/node-exporter: it names no namespace (k8s:ns)')
    expect(code).toBe(1)
  })

  it('may be written by others: no agent reads these files', async () => {
    chmodSync(write('ids.yaml', IDS), 0o666)
    expect(await checkFiles([join(dir, 'ids.yaml')], { trustDomain: 'example.org' }, keptIo())).toBe(0)
  })
})

describe('a custom resource that is wrong', () => {
  it.each([
    [IDS.replace('podSelector', 'podSelectr'), '7: ClusterSPIFFEID all: unknown key "podSelectr", did you'],
    [IDS.replace('x509: false', 'x509: yes'), '8: ClusterSPIFFEID all: deliver.x509: is "yes", wanted true'],
    [IDS.replace('.PodMeta.Namespace', '.PodMeta.Nmspace'), '6: ClusterSPIFFEID all: spiffeIDTemplate: '],
    [`${IDS}  ttl: 5s\n`, '9: ClusterSPIFFEID all: ttl: is "5s", wanted from 60s'],
    [ENTRY.replace('k8s:sa:', 'k8s:saa:'), '7: ClusterStaticEntry node-exporter: selectors[1]: '],
    [
      ENTRY.replace('example.org', 'other.org'),
      '2: ClusterStaticEntry node-exporter: spiffe://other.org/exp',
    ],
    [
      `${ENTRY}  parentID: spiffe://example.org/node\n`,
      '8: ClusterStaticEntry node-exporter: parentID: is there',
    ],
    [
      CEILING.replace('tokenless: true', 'tokenless: true, deliver: nothing'),
      '7: ClusterPolicy orders-identity: unknown key "deliver" in targets[0]',
    ],
    [CEILING.replace('identity\n  t', 'root\n  t'), '5: ClusterPolicy orders-identity: layer is "root"'],
    [
      GRANT.replace('ns/shop', 'ns/pay'),
      '2: Grant shop/orders: the caller spiffe://example.org/ns/pay/sa/cart is',
    ],
    [GRANT.replace('paths: [/', 'probe: true, paths: [/'), '2: Grant shop/orders: probe: true is for'],
    [GRANT.replace('targets', 'targetz'), '2: Grant shop/orders: unknown key "targetz": wanted targets'],
    [GRANT.replace(/targets[\s\S]*/, '{}\n'), '4: Grant shop/orders: targets: is missing'],
    [`${IDS}statuss: {}\n`, '9: unknown key "statuss", did you mean "status"?'],
    [IDS.replace('{ name: all,', '{ nam: all,'), '4: metadata.name: is missing'],
    [IDS.replace('name: all', 'name: All'), '4: metadata.name: is "All", wanted lower-case'],
    [IDS.replace('name: all', 'name: all, labels: { a: 1 }'), '4: metadata.labels.a: is 1, wanted a text'],
    [IDS.replace(/^spec:[\s\S]*/m, ''), '1: spec: is missing'],
    [GRANT.replace(', namespace: shop', ''), '2: metadata.namespace: is missing: Grant orders stands in'],
    [IDS.replace('v1alpha1', 'v1'), '3: apiVersion: is "holdfast.dev/v1", wanted holdfast.dev/v1alpha1'],
    [IDS.replace('ClusterSPIFFEID', 'ClusterSPIFFEId'), '3: kind: is "ClusterSPIFFEId", wanted'],
    [`${IDS}---\nlayer: security\n`, '10: apiVersion and kind are missing: a policy file stands alone'],
    [`${IDS}---\n${IDS}`, '12: ClusterSPIFFEID all is there twice; first at x.yaml:3'],
  ])('is refused with its line: %#', async (text, problem) => {
    const { code, out } = await checked({ 'x.yaml': text })
    expect(out).toMatch(/^not valid: [1-9]/)
    expect(out).toContain(`✗ x.yaml:${problem}`)
    expect(code).toBe(1)
  })

  it('leaves the others to be judged, and is in the JSON', async () => {
    const bad = ENTRY.replace('k8s:ns:monitoring', 'nothing')
    const { code, out } = await checked({ 'x.yaml': `${bad}---\n${IDS}` }, { output: 'json' })
    const [entry, ids] = JSON.parse(out).objects
    expect(ids).toMatchObject({
      name: 'ClusterStaticEntry node-exporter',
      place: { file: 'x.yaml', line: 2 },
    })
    expect(ids.problems).toHaveLength(1)
    expect(entry).toMatchObject({ name: 'ClusterSPIFFEID all', problems: [] })
    expect(code).toBe(1)
  })

  it('is refused where it cannot stand beside another, the later one', async () => {
    const older = CEILING.replace('identity }', 'identity, creationTimestamp: "2026-01-02T00:00:00Z" }')
    const newer = older.replace('2026-01-02', '2026-01-03').replace('name: orders-id', 'name: a-id')
    const { code, out } = await checked({ 'x.yaml': `${newer}---\n${older}` })
    expect(out).toContain(
      '✗ x.yaml:2: ClusterPolicy a-identity: layer identity has the target orders twice; first at ClusterPolicy orders-identity',
    )
    expect(out).toMatch(/^not valid: 1 problem\n/)
    expect(code).toBe(1)
  })

  it('is not looked at where the policy files conflict, which is said', async () => {
    const { code, out } = await checked({ 'a.yaml': PLATFORM, 'b.yaml': PLATFORM, 'ids.yaml': IDS })
    expect(out).toBe(
      'not valid: 1 problem\n  ✗ b.yaml:3: layer platform has the target orders twice; first at a.yaml:3\n  - no custom resource was checked: the policy files have to stand first\n',
    )
    expect(code).toBe(1)
  })

  it('asks for what only a configuration names', async () => {
    const { out } = await checked({ 'x.yaml': IDS.replace('/ns/', '/{{ .ClusterName }}/ns/') })
    expect(out).toContain('asks for .ClusterName, which the configuration does not name')
  })
})

describe('hostile YAML', () => {
  const bomb = [
    'a: &a [x, x, x]',
    ...'bcdefghij'.split('').map((name, at) => {
      const before = 'abcdefghij'[at]
      return `${name}: &${name} [${Array(9).fill(`*${before}`).join(', ')}]`
    }),
  ].join('\n')

  it.each([
    ['aliases', `apiVersion: v1\n${bomb}\n`, '2: the anchor &a is refused'],
    ['an anchor', IDS.replace('{ name: all,', '&m { name: all,'), '4: the anchor &m is refused'],
    [
      'a merge key',
      IDS.replace('spec:\n', 'spec:\n  <<: { fallback: true }\n'),
      '6: ClusterSPIFFEID all: unknown key "<<"',
    ],
    ['a tag', IDS.replace('name: all', 'name: !!binary YWxs'), '4: the tag'],
    ['a key twice', `${IDS}kind: Grant\n`, '9: the key "kind" is there twice; first on line 3'],
    ['a prototype', IDS.replace('spec:', '__proto__: {}\nspec:'), '5: the key "__proto__" is refused'],
    ['a directive', `%YAML 1.1\n---\n${IDS}`, '1: '],
    ['a document on its separator', `${IDS}--- { kind: x }\n`, '9: a document begins on the line of its ---'],
    ['depth', `apiVersion: ${'['.repeat(40)}${']'.repeat(40)}\n`, '1: over 32 brackets are open'],
    ['a long line', `apiVersion: "é${'x'.repeat(9_000)}"\n`, '1: the line is over 8192 characters'],
    ['many documents', '---\napiVersion: v1\n'.repeat(6_000), '10003: over 5000 documents'],
    ['escapes', IDS.replace('name: all', 'name: "a\\e[31m"'), '4: metadata.name: is "a\\u001b[31m"'],
  ])('with %s is refused', async (_what, text, problem) => {
    const { code, out } = await checked({ 'x.yaml': text })
    expect(out).toContain(`✗ x.yaml:${problem}`)
    expect(out).not.toContain('\u001b')
    expect(code).toBe(1)
  })

  it('of over 1 MiB is not read', async () => {
    const text = `${IDS}# ${'x'.repeat(8_000)}\n`.padEnd(1024 * 1024 + 1, `# ${'x'.repeat(4_000)}\n`)
    const { code, out } = await checked({ 'x.yaml': text })
    expect(out).toContain('✗ x.yaml: is over 1048576 characters')
    expect(code).toBe(1)
  })

  it('of just below 1 MiB is read', async () => {
    const one = (index: number) => ENTRY.replaceAll('exporter', `exporter-${index}`)
    const text = Array.from({ length: 5_000 }, (_, index) => one(index)).join('---\n')
    const { code, out } = await checked({ 'x.yaml': text })
    expect(text.length).toBeGreaterThan(900_000)
    expect(out).toMatch(/^valid: 1 file, 5000 objects, 5000 entries/)
    expect(code).toBe(0)
  })
})

describe('the CustomResourceDefinitions', () => {
  const CRDS = new URL('../../../deploy/helm/holdfast/crds/', import.meta.url)
  it.each([
    ['clusterspiffeids', CLUSTER_SPIFFE_ID],
    ['clusterstaticentries', CLUSTER_STATIC_ENTRY],
  ])('of %s know the members that the agent knows', (name, schema) => {
    const crd = yaml.parse(readFileSync(new URL(`${name}.yaml`, CRDS), 'utf8'))
    const { properties, required } = crd.spec.versions[0].schema.openAPIV3Schema.properties.spec
    expect(Object.keys(properties).sort()).toEqual(Object.keys(schema.shape).sort())
    expect(required.filter((member: string) => schema.shape[member as 'hint'].isOptional())).toEqual([])
    expect(properties.instance.enum).toEqual(schema.shape.instance.unwrap().options)
  })
})
