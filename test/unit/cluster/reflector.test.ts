/** Custom resources over real HTTPS: what an agent knows of them while the API server fails in each way it can. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Clock, systemClock } from '../../../src/base/clock.ts'
import type { RuleBook } from '../../../src/policy/book.ts'
import { ClusterPolicySource, refusedTexts } from '../../../src/policy/kubernetes-source.ts'
import { loadPolicy } from '../../../src/policy/load.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { clusterPolicy, clusterSpiffeId, namespace, PATHS } from '../../support/custom-resources.ts'
import { type FakeApiServer, startFakeApiServer } from '../../support/fake-api-server.ts'
import { context } from '../../support/policy.ts'
import { until } from '../../support/until.ts'

let api: FakeApiServer
let dir: string
let source: ClusterPolicySource
let book: RuleBook
let faults: string[]
let refused: readonly string[]

/** Real time, but what is waited for after a failure passes at once. */
const hurried: Clock = {
  ...systemClock,
  after: (delay, then) => systemClock.after(delay <= 5_000 ? Math.min(delay, 10) : delay, then),
}

function open(clock: Clock = hurried): ClusterPolicySource {
  return new ClusterPolicySource({
    url: api.url,
    caFile: join(dir, 'ca.crt'),
    tokenFile: join(dir, 'token'),
    clock,
    maxAge: 3600,
    className: 'holdfast',
    isDefaultClass: true,
    allLabels: true,
    writesStatus: true,
  })
}

async function follow(): Promise<void> {
  const load = async () => {
    book = await loadPolicy([], context, source)
  }
  await load()
  source.attach({
    onChange: () => void load(),
    onFault: (fault) => faults.push(fault?.message ?? 'well'),
    onReports: (reports) => {
      refused = refusedTexts(reports)
    },
  })
}

const ids = () =>
  book
    .entriesFor(new Set(['k8s:ns:shop', 'k8s:sa:cart'] as readonly string[] as readonly Selector[]))
    .map(({ spiffeId }) => spiffeId)
const CART = 'spiffe://example.org/ns/shop/sa/cart'

beforeEach(async () => {
  api = await startFakeApiServer()
  dir = mkdtempSync(join(tmpdir(), 'holdfast-cluster-'))
  writeFileSync(join(dir, 'ca.crt'), api.ca.pem)
  writeFileSync(join(dir, 'token'), 'good\n')
  faults = []
  refused = []
  source = open()
})
afterEach(async () => {
  source.stop()
  await api.stop()
  rmSync(dir, { recursive: true })
})

describe('the custom resources of a cluster', () => {
  it('are listed in pages, then followed', async () => {
    api.pageSize = 2
    for (const name of ['a', 'b', 'c', 'd', 'e']) api.put(PATHS.namespaces, namespace(name))
    source.start()
    expect(await source.seen(10_000)).toBe(true)
    await follow()
    expect(ids()).toEqual([])
    api.put(PATHS.ids, clusterSpiffeId('all'))
    await until('the entry', () => ids()[0] === CART)
    api.remove(PATHS.ids, '', 'all')
    await until('its end', () => ids().length === 0)
    expect(api.asked.filter((each) => each.startsWith(`GET ${PATHS.namespaces}?limit`))).toHaveLength(3)
  })

  it('follow the labels of namespaces', async () => {
    api.put(PATHS.ids, clusterSpiffeId('a', { namespaceSelector: { matchLabels: { team: 'x' } } }))
    source.start()
    await source.seen(10_000)
    await follow()
    expect(ids()).toEqual([])
    api.put(PATHS.namespaces, namespace('shop', { team: 'x' }))
    await until('the entry', () => ids().length === 1)
  })

  it.each([
    ['a stream that is cut in the middle of a line', () => api.cut()],
    ['a line that is none', () => api.garble()],
    [
      'a version that is too old',
      () => {
        api.compact()
        api.cut()
      },
    ],
    [
      'an API server that fails for a while',
      () => {
        const before = api.asked.length
        api.refuses = 500
        api.cut()
        // Few enough that no wait between two tries is one that is not hurried.
        void until('some refusals', () => api.asked.length >= before + 3).then(() => {
          api.refuses = 0
        })
      },
    ],
  ])('survive %s, and lose nothing meanwhile', async (_what, trouble) => {
    api.put(PATHS.ids, clusterSpiffeId('all'))
    source.start()
    await source.seen(10_000)
    await follow()
    expect(ids()).toEqual([CART])
    await until('the watches', () => api.watching() === 5)
    trouble()
    await until('the fault', () => faults.some((each) => each !== 'well'))
    expect(ids()).toEqual([CART])
    const deny = { layer: 'security', deny: [{ target: 'orders', reason: 'incident' }] }
    api.put(PATHS.policies, clusterPolicy('deny', deny))
    await until('what was stated later', () => book.denialOf(CART as never, 'orders')?.why === 'incident')
    expect(ids()).toEqual([CART])
  })

  it('that nobody may read leave an agent with its files, and everything denied', async () => {
    api.refuses = 403
    source.start()
    await until('an answer', () => api.asked.length > 10)
    expect(await source.seen(50)).toBe(false)
    await follow()
    expect(book.isPartial).toBe(true)
    expect(book.denialOf(CART as never, 'orders')).toBeDefined()
    expect(faults.join()).toContain('does not allow this to the agent (403)')
    api.refuses = 0
    api.put(PATHS.ids, clusterSpiffeId('all'))
    await until('the whole', () => !book.isPartial && ids().length === 1)
  })

  it('count no more when the API server has not been heard of for too long', async () => {
    let late = 0
    source.stop()
    source = open({ ...hurried, monotonic: () => systemClock.monotonic() + late })
    api.put(PATHS.ids, clusterSpiffeId('all'))
    source.start()
    await source.seen(10_000)
    await follow()
    expect(ids()).toEqual([CART])
    api.refuses = 503
    api.cut()
    late = 3601_000
    await until('the end of its entries', () => ids().length === 0)
  })

  it('say in their status whether they were accepted, once', async () => {
    api.put(PATHS.ids, clusterSpiffeId('good'))
    api.put(PATHS.ids, clusterSpiffeId('bad', { admin: true }))
    source.start()
    await source.seen(10_000)
    await follow()
    await until('both', () => api.patches.size === 2)
    expect(refused).toEqual([expect.stringContaining('ClusterSPIFFEID bad: admin')])
    expect(api.patches.get(`${PATHS.ids}/bad/status`)).toMatchObject({
      status: {
        conditions: [
          {
            type: 'Accepted',
            status: 'False',
            observedGeneration: 1,
            message: expect.stringContaining('admin'),
          },
        ],
      },
    })
    const patches = () => api.asked.filter((each) => each.startsWith('PATCH')).length
    const before = patches()
    await loadPolicy([], context, source)
    expect(patches()).toBe(before)
  })

  it('are not told again by an API server that forbids it', async () => {
    api.refusesPatches = 403
    api.put(PATHS.ids, clusterSpiffeId('good'))
    source.start()
    await source.seen(10_000)
    await follow()
    const patches = () => api.asked.filter((each) => each.startsWith('PATCH')).length
    await until('the try', () => patches() === 1)
    api.put(PATHS.ids, clusterSpiffeId('more', { ttl: '1h' }))
    await until('it', () => book.templates.length === 2)
    expect(patches()).toBe(1)
  })
})
