/** Entries made of facts of the pod: what a template becomes, and what no value can make of it. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fillId, mayBecome, parseIdTemplate } from '../../../src/policy/template.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { bookOf, context, problemsIn } from '../../support/policy.ts'

const DEFAULT = 'spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}'
const POD = ['k8s:ns:shop', 'k8s:sa:cart', 'k8s:pod-label:app:web', 'k8s:pod-name:cart-1'] as const

function filled(template: string, selectors: readonly string[] = POD) {
  const parsed = parseIdTemplate(template)
  const result = fillId(parsed, new Set(selectors as readonly Selector[]), context)
  return 'id' in result ? result.id : result.misfit
}

describe('a template', () => {
  it.each([
    [DEFAULT, 'spiffe://example.org/ns/shop/sa/cart'],
    ['spiffe://example.org/{{index .PodMeta.Labels "app"}}', 'spiffe://example.org/web'],
    ['spiffe://{{ .TrustDomain }}/v1-{{ .PodMeta.Labels.app }}', 'spiffe://example.org/v1-web'],
    ['spiffe://example.org/{{ .PodMeta.Namespace }}.{{ .PodMeta.Name }}', 'spiffe://example.org/shop.cart-1'],
  ])('%s becomes %s', (template, id) => {
    expect(filled(template)).toBe(id)
  })

  it.each([
    ['{{ .TrustDomain }}/a', 'wanted spiffe://'],
    ['spiffe://{{ .TrustDomain }}', 'needs a path'],
    ['spiffe://{{ .TrustDomain }}.evil.org/a', 'trust domain'],
    ['spiffe://{{ .PodMeta.Namespace }}/a', 'trust domain'],
    ['spiffe://{{ .TrustDomain }}/{{ .PodMeta.Namspace }}', 'did you mean ".PodMeta.Namespace"?'],
    ['spiffe://{{ .TrustDomain }}/{{ printf "%s" .PodMeta.Name }}', 'not supported'],
    ['spiffe://{{ .TrustDomain }}/{{ .PodMeta.Name }', 'braces'],
    ['spiffe://{{ .TrustDomain }}/a//b', 'SPIFFE ID'],
    ['spiffe://{{ .TrustDomain }}/a/../b', 'SPIFFE ID'],
    ['spiffe://{{ .TrustDomain }}/{{ .PodMeta.Namespace }}-{{ .PodMeta.Name }}', 'read in two ways'],
    ['spiffe://{{ .TrustDomain }}/{{ .PodMeta.Labels.a }}_{{ .PodMeta.Labels.b }}', 'read in two ways'],
  ])('%s is refused', (template, why) => {
    expect(() => parseIdTemplate(template)).toThrow(why)
  })

  it.each([
    ['/', 'cannot stand there'],
    ['a/b', 'cannot stand there'],
    ['a%2fb', 'cannot stand there'],
    ['..', 'becomes no SPIFFE ID'],
    ['.', 'becomes no SPIFFE ID'],
    ['', 'cannot stand there'],
    ['a b', 'cannot stand there'],
    ['ü', 'cannot stand there'],
    ['a\n', 'cannot stand there'],
  ])('refuses the identity of a pod whose label is %j', (value, why) => {
    expect(
      filled('spiffe://{{ .TrustDomain }}/{{ .PodMeta.Labels.app }}', [`k8s:pod-label:app:${value}`]),
    ).toContain(why)
  })

  it('refuses a caller without the fact, or with two of it', () => {
    expect(filled(DEFAULT, ['k8s:ns:shop'])).toContain('has no .PodSpec.ServiceAccountName')
    expect(filled(DEFAULT, ['k8s:ns:shop', 'k8s:ns:other', 'k8s:sa:a'])).toContain(
      'has no .PodMeta.Namespace',
    )
  })

  it('never has more segments than it was written with, nor another trust domain, whatever the values are', () => {
    const pieces = fc.constantFrom(
      'ns',
      '{{ .PodMeta.Namespace }}',
      'a-{{ .PodMeta.Labels.app }}',
      '{{ .PodSpec.ServiceAccountName }}.x',
    )
    const value = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('a/b', '..', '.', '//', 'x', '{{ .TrustDomain }}', 'spiffe://b/c', '%2f'),
    )
    fc.assert(
      fc.property(
        fc.array(pieces, { minLength: 1, maxLength: 5 }),
        value,
        value,
        value,
        (path, ns, sa, app) => {
          const text = `spiffe://{{ .TrustDomain }}/${path.join('/')}`
          const id = filled(text, [`k8s:ns:${ns}`, `k8s:sa:${sa}`, `k8s:pod-label:app:${app}`])
          if (!id.startsWith('spiffe://example.org'))
            expect(id).toMatch(/^spiffe:\/\/\{\{ \.TrustDomain \}\}/)
          else {
            expect(id.split('/')).toHaveLength(text.split('/').length)
            expect(id.startsWith('spiffe://example.org/')).toBe(true)
          }
        },
      ),
    )
  })
})

const NOTHING = '{ x509: false, jwt: false, wit: false }'
const EVERYTHING = '{ x509: true, jwt: true, wit: true }'

const entries = (...lines: readonly string[]) => ({
  identity: `layer: identity\nentries:\n${lines.join('\n')}\n`,
})
const template = (name: string, selectors: string, more = '', deliver = NOTHING) =>
  `  - { name: ${name}, spiffe_id_template: "${DEFAULT}", selectors: [${selectors}], deliver: ${deliver}${more} }`

describe('entries with templates', () => {
  const find = async (files: Record<string, string>, selectors: readonly string[] = POD) => {
    const book = await bookOf(files)
    return book.entriesFor(new Set(selectors as readonly Selector[]))
  }

  it('give each caller an identity of its own, the same object to all callers of one identity', async () => {
    const book = await bookOf(entries(template('shop', '"k8s:ns:shop"')))
    const [first] = book.entriesFor(new Set(POD as readonly string[] as readonly Selector[]))
    const [again] = book.entriesFor(
      new Set([...POD, 'unix:uid:7'] as readonly string[] as readonly Selector[]),
    )
    expect(first).toMatchObject({ spiffeId: 'spiffe://example.org/ns/shop/sa/cart', name: 'shop' })
    expect(again).toBe(first)
    expect(book.identities()).toEqual([first])
    expect(
      book.entriesFor(new Set(['k8s:ns:other', 'k8s:sa:x'] as readonly string[] as readonly Selector[])),
    ).toEqual([])
  })

  it('let the entry with more selectors decide what a container is delivered', async () => {
    const files = entries(
      template('app', '"k8s:ns:shop"'),
      template('proxy', '"k8s:ns:shop", "k8s:container-name:proxy"', '', EVERYTHING),
    )
    const of = async (container: string) =>
      (await find(files, [...POD, `k8s:container-name:${container}`])).map(({ name, deliver }) => [
        name,
        deliver.x509,
      ])
    expect(await of('proxy')).toEqual([['proxy', true]])
    expect(await of('app')).toEqual([['app', false]])
  })

  it('fall back only where nothing else fits', async () => {
    const files = entries(
      template('rest', '"k8s:ns:shop"', ', fallback: true'),
      `  - { name: own, spiffe_id: spiffe://example.org/own, selectors: ["k8s:sa:cart"], deliver: ${NOTHING} }`,
    )
    expect((await find(files)).map(({ name }) => name)).toEqual(['own'])
    expect((await find(files, ['k8s:ns:shop', 'k8s:sa:x'])).map(({ name }) => name)).toEqual(['rest'])
  })

  it('say why a caller that they fit gets none', async () => {
    const book = await bookOf(entries(template('shop', '"k8s:ns:shop"')))
    expect(book.misfits(new Set(['k8s:ns:shop' as Selector]))).toEqual([
      expect.stringContaining('the caller has no .PodSpec.ServiceAccountName'),
    ])
  })

  it('keep a value within one label of a DNS name', async () => {
    const files = entries(
      template('shop', '"k8s:ns:shop"', ', dns_name_templates: ["{{ .PodMeta.Labels.app }}.shop.svc"]'),
    )
    expect((await find(files))[0]?.dnsNames).toEqual(['web.shop.svc'])
    expect(await find(files, ['k8s:ns:shop', 'k8s:sa:cart', 'k8s:pod-label:app:a.b'])).toEqual([])
  })

  it('never make the identity of the replay lab', async () => {
    const files = entries(
      template('shop', '"k8s:ns:shop"'),
      `  - { name: lab, spiffe_id: spiffe://example.org/ns/shop/sa/cart, selectors: ["unix:uid:7"], probe: true, deliver: ${NOTHING} }`,
    )
    expect(await find(files)).toEqual([])
  })

  it.each([
    ['{ name: a, selectors: ["unix:uid:1"], deliver: %}', 'spiffe_id: is missing'],
    [
      `{ name: a, spiffe_id: spiffe://example.org/a, fallback: true, selectors: ["unix:uid:1"], deliver: %}`,
      'fallback',
    ],
    [
      `{ name: a, spiffe_id_template: "spiffe://other.org/{{ .PodMeta.Name }}", selectors: ["unix:uid:1"], deliver: %}`,
      'outside the trust domain',
    ],
    [
      `{ name: a, spiffe_id_template: "spiffe://{{ .TrustDomain }}/{{ .ClusterName }}", selectors: ["unix:uid:1"], deliver: %}`,
      'asks for .ClusterName',
    ],
  ])('refuse %s', async (line, why) => {
    const found = await problemsIn(entries(`  - ${line.replace('%', NOTHING)}`))
    expect(found.join()).toContain(why)
  })
})

describe('the callers of grants', () => {
  it.each([
    ['spiffe://example.org/ns/shop/sa/cart', true],
    ['spiffe://example.org/ns/**', true],
    ['spiffe://example.org/ns/shop/sa/cart/**', true],
    ['spiffe://example.org/ns/shop/sa/cart/x/**', false],
    ['spiffe://example.org/ns/shop', false],
    ['spiffe://example.orgs/ns/shop/sa/cart', false],
    ['spiffe://example.org/vm/**', false],
  ])('%s may be made by a template: %s', (caller, may) => {
    expect(mayBecome(parseIdTemplate(DEFAULT), context, caller)).toBe(may)
  })
})
