import { chmodSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Containers } from '../../../src/attest/containers.ts'
import { Attestation, type AttestedWorkload } from '../../../src/attest/identify.ts'
import { kubeletLists } from '../../../src/attest/kubelet.ts'
import { ListedPods } from '../../../src/attest/listed-pods.ts'
import { type PodList, parsePods } from '../../../src/attest/pod-list.ts'
import { parsePodMessages } from '../../../src/attest/pod-messages.ts'
import { PodsApi } from '../../../src/attest/pods-api.ts'
import { Fault } from '../../../src/base/fault.ts'
import { Live } from '../../../src/base/live.ts'
import { connectBytes } from '../../../src/client/grpc.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { bookOfEntries, entry } from '../../support/book.ts'
import { ROOT } from '../../support/built-agent.ts'
import { ManualClock } from '../../support/clock.ts'
import { type FakePod, podList } from '../../support/fake-kubelet.ts'
import { type FakePodsApi, startFakePodsApi } from '../../support/fake-pods-api.ts'
import { FakeKernel } from '../../support/kernel.ts'
import { until } from '../../support/until.ts'

const UID = '0f9a1c2e-1111-4222-8333-444455556666'
const OTHER = `${UID.slice(0, -1)}7`
const [CID, NEXT] = ['ab'.repeat(32), 'cd'.repeat(32)]
const CART: FakePod = {
  name: 'cart-1',
  uid: UID,
  serviceAccount: 'cart',
  labels: { app: 'cart', empty: '' },
  owners: [{ kind: 'ReplicaSet', name: 'cart', uid: 'r-1' }],
  containers: [{ name: 'app', id: CID }],
}
/** What every node has. */
const PROXY: FakePod = {
  name: 'kube-proxy-1',
  namespace: 'kube-system',
  uid: '0f9a1c2e-1111-4222-8333-00000000aaaa',
  containers: [{ name: 'kube-proxy', id: '77'.repeat(32) }],
}
const SA = entry('cart', ['k8s:ns:shop', 'k8s:sa:cart'])

let fake: FakePodsApi
let clock: ManualClock
let kernel: FakeKernel
let health: Health
let api: PodsApi
let source: ListedPods
let attestation: Attestation
let answers: number
beforeEach(async () => {
  fake = await startFakePodsApi()
  fake.pods = [CART]
  clock = new ManualClock()
  kernel = new FakeKernel()
  health = new Health()
  open()
})
afterEach(async () => {
  attestation.stop()
  await fake[Symbol.asyncDispose]()
})

interface OpenOptions {
  readonly socket?: string
  readonly timeout?: number
  readonly every?: number
}

function open(options: OpenOptions = {}): void {
  const maxBytes = 1024 * 1024
  const { socket = fake.socket, timeout = 5_000, every = 1_000 } = options
  const connect = async () => connectBytes(socket, maxBytes)
  api = new PodsApi({ socket, connect, clock, timeout, maxBytes })
  source = new ListedPods({ lists: api, clock, health, every })
  answers = 0
  source.watch(() => {
    answers += 1
  })
  const rules = {
    labels: ['*'],
    terminating: 'end',
    ephemeral: false,
    static: 'narrow',
    unlisted: 'refuse',
  } as const
  const containers = new Containers({ kubelet: source, clock, rules, maxAge: 5_000, outageAge: 3_600_000 })
  const pods = { containers, cgroupRoot: 'auto', podUid: undefined }
  const book = new Live(bookOfEntries(SA))
  attestation = new Attestation({ clock, book, health, kernel, pods })
}

const at = (id = CID, uid = UID) => ({
  cgroup: `0::/kubepods/besteffort/pod${uid}/${id}`,
  namespacePids: [42, 1],
})
let pid = 42
const attest = (id = CID, uid = UID) => attestation.attest(kernel.connect(kernel.start(pid++, at(id, uid))))
const names = (workload: AttestedWorkload) => workload.entries().map((each) => each.name)

/** Asks, and lets time pass until that is answered. */
async function settled(workload: AttestedWorkload): Promise<AttestedWorkload> {
  let isReady = workload.ready === undefined
  void workload.ready?.then(() => {
    isReady = true
  })
  await until('the answer', () => {
    clock.advance(50)
    return isReady
  })
  return workload
}

async function known(): Promise<AttestedWorkload> {
  const workload = await settled(attest())
  expect(names(workload)).toEqual(['cart'])
  return workload
}

function refusal(workload: AttestedWorkload): string {
  try {
    workload.peer.check()
  } catch (caught) {
    return caught instanceof Fault ? `${caught.reason}: ${caught.message}` : String(caught)
  }
  return 'none'
}

const asked = (method: string) => fake.asked.filter((each) => each === method).length
/** The watch is open and what it rang for is answered. */
async function watching(): Promise<void> {
  await until('the watch', () => {
    clock.advance(10)
    return asked('WatchPods') > 0 && fake.events > 0 && answers > 1
  })
}

const podsIn = (list: PodList) =>
  [...list.byUid.values()].sort((one, other) => one.uid.localeCompare(other.uid))

describe('a pod', () => {
  it('of a real kubelet is the same by its Pods API and by GET /pods', () => {
    const { bytes, list } = JSON.parse(readFileSync(join(ROOT, 'test/vectors/pods-api.json'), 'utf8'))
    const pods = podsIn(parsePodMessages(Buffer.from(bytes, 'base64')))
    expect(pods).toEqual(podsIn(parsePods(list)))
    expect(pods.map(({ name }) => name).sort()).toEqual([
      'a',
      'cart-5d9-x',
      'done',
      's-node-1',
      'term',
      'waits',
    ])
    expect(pods.filter(({ isTerminating }) => isTerminating).map(({ name }) => name)).toEqual(['term'])
    expect(pods.filter(({ isStatic }) => isStatic).map(({ name }) => name)).toEqual(['s-node-1'])
  })

  it.each<readonly [string, FakePod]>([
    ['that runs', CART],
    ['with a service account, owners and labels of no value', { ...CART, labels: { a: '' } }],
    ['that is being deleted', { ...CART, deleted: true }],
    ['whose container waits', { ...CART, containers: [{ name: 'app' }] }],
    ['whose container has ended', { ...CART, containers: [{ name: 'app', id: CID, state: 'terminated' }] }],
    ['that was restarted', { ...CART, containers: [{ name: 'app', id: NEXT, lastId: CID }] }],
    ['of CRI-O', { ...CART, containers: [{ name: 'app', id: CID, runtime: 'cri-o' }] }],
    [
      'with every kind of container',
      { ...CART, init: [{ name: 'i', id: NEXT }], ephemeral: [{ name: 'e' }] },
    ],
    [
      'with a debugger that has not started',
      {
        ...CART,
        ephemeral: [
          { name: 'e', isUnwritten: true },
          { name: 'f', id: NEXT },
        ],
      },
    ],
    ['without a status', { ...CART, containers: [] }],
    ['of a manifest', { ...CART, uid: '0123456789abcdef0123456789abcdef', isStatic: true }],
  ])('%s is the same in both forms', async (_what, pod) => {
    fake.pods = [pod]
    const https = {
      ask: async () => ({ status: 200, bytes: Buffer.from(JSON.stringify(podList([pod]))) }),
      refusal: () => new Fault('bug'),
      close: () => {},
    }
    const { signal } = new AbortController()
    const json = await kubeletLists({ https, maxBytes: 1_000_000 }).ask(signal)
    expect(await api.ask(signal)).toEqual(json)
  })
})

describe('a list of the Pods API', () => {
  it('is asked for once by all who come at the same time, and is parsed once while nothing changes', async () => {
    fake.pods = Array.from({ length: 20 }, (_, index) => {
      const id = index.toString(16).padStart(64, '0')
      return {
        ...CART,
        name: `cart-${index}`,
        uid: `${UID.slice(0, -2)}${10 + index}`,
        containers: [{ name: 'app', id }],
      }
    })
    const workloads = fake.pods.map(({ uid, containers }) => attest(containers[0]?.id, uid))
    await Promise.all(workloads.map(settled))
    expect(workloads.map(names)).toEqual(workloads.map(() => ['cart']))
    const first = await source.since(clock.monotonic())
    clock.advance(1)
    expect((await source.since(clock.monotonic())).list).toBe(first.list)
  })

  it.each([
    ['initializing', /does not know its pods yet: Kubelet is initializing/],
    ['limited', /refuses, since too many ask it at once/],
    ['hung', /has not answered within 0\.2 s/],
    ['wrong_bytes', /something that is no list of pods/],
    ['too_long', /more than 1 MiB/],
    ['too_many', /more than 10000 pods/],
    ['unimplemented', /is not what answers on the socket/],
    ['internal', /code 13: failed to marshal pod: proto: \ufffd/],
  ] as const)('that fails changes nothing and says why: %s', async (trouble, words) => {
    attestation.stop()
    open({ timeout: 200 })
    const workload = await known()
    fake.trouble = trouble
    fake.pods = [PROXY]
    const later = await settled(attest(NEXT, OTHER))
    expect(refusal(later)).toMatch(/^pod_facts_unavailable: /)
    expect(refusal(later)).toMatch(words)
    expect(health.degraded).toEqual([expect.objectContaining({ code: 'kubelet_unavailable' })])
    expect(workload.signal.aborted).toBe(false)
    expect(names(await settled(attest()))).toEqual(['cart'])
    fake.trouble = 'none'
    await until('the end', () => {
      clock.advance(200)
      return workload.signal.aborted && health.degraded.length === 0
    })
  })

  it('is asked for again when the kubelet had too much to do for a moment', async () => {
    fake.trouble = 'limited'
    const workload = attest()
    await until('a question', () => asked('ListPods') > 1 || void clock.advance(20))
    fake.trouble = 'none'
    expect(names(await settled(workload))).toEqual(['cart'])
    expect(health.degraded).toEqual([])
  })

  it('comes from a kubelet that was started again', async () => {
    const workload = await known()
    await fake.stop()
    expect(refusal(await settled(attest(NEXT, OTHER)))).toMatch(/^pod_facts_unavailable: .*does not exist/)
    expect(workload.signal.aborted).toBe(false)
    await fake.resume()
    fake.pods = [CART, { ...CART, name: 'next', uid: OTHER, containers: [{ name: 'app', id: NEXT }] }]
    await until('an answer', () => {
      clock.advance(50)
      return health.degraded.length === 0
    })
    expect(names(await settled(attest(NEXT, OTHER)))).toEqual(['cart'])
  })
})

describe('the socket of the Pods API', () => {
  const refused = async (socket: string) => {
    attestation.stop()
    open({ socket })
    return refusal(await settled(attest()))
  }

  it.each([
    ['in a directory that others may write', () => chmodSync(fake.directory, 0o777), /others may write/],
    ['in a directory that its group may write', () => chmodSync(fake.directory, 0o770), /others may write/],
  ])('is not believed %s', async (_what, spoil, words) => {
    spoil()
    expect(await refused(fake.socket)).toMatch(words)
    expect(fake.asked).toEqual([])
  })

  it('is not believed where it is a file, or missing', async () => {
    const file = join(fake.directory, 'file')
    writeFileSync(file, '')
    expect(await refused(file)).toMatch(/^pod_facts_unavailable: .* is no socket/)
    expect(await refused(join(fake.directory, 'none'))).toMatch(/does not exist/)
    expect(health.degraded[0]?.action).toMatch(/PodsAPI/)
  })

  it('is not believed behind a link that somebody else may change', async () => {
    const open = join(fake.directory, 'open')
    mkdirSync(open)
    symlinkSync(fake.socket, join(open, 'link.sock'))
    chmodSync(open, 0o777)
    expect(await refused(join(open, 'link.sock'))).toMatch(/others may write/)
    rmSync(open, { recursive: true })
  })
})

/** Longer than any of these tests lasts: what happens is what the watch rang for. */
const SELDOM = 3_000_000

describe('the watch of the Pods API', () => {
  it('ends a lease as soon as its pod is gone', async () => {
    attestation.stop()
    open({ every: SELDOM })
    const workload = await known()
    const { signal } = workload.instanceOf(SA)
    await watching()
    fake.change([PROXY])
    await until('the end', () => signal.aborted || void clock.advance(10))
  })

  it('tells of a pod that is being deleted before it leaves the list', async () => {
    attestation.stop()
    open({ every: SELDOM })
    const workload = await known()
    await watching()
    fake.change([{ ...CART, deleted: true }])
    await until('the end', () => workload.signal.aborted || void clock.advance(10))
  })

  it('is followed by a second look: a kubelet tells of a deletion by force before its list does', async () => {
    attestation.stop()
    open({ every: SELDOM })
    const workload = await known()
    await watching()
    await until('the echo of the first events', () => answers > 2 || void clock.advance(10))
    const before = answers
    fake.tell('MODIFIED', CART)
    await until('the list that was rung for', () => answers > before || void clock.advance(10))
    expect(workload.signal.aborted).toBe(false)
    fake.pods = [PROXY]
    await until('the end', () => workload.signal.aborted || void clock.advance(10))
  })

  it('takes no pod away that is still listed', async () => {
    const workload = await known()
    await watching()
    const before = answers
    fake.tell('DELETED', CART)
    await until('a list', () => answers > before || void clock.advance(10))
    expect(workload.signal.aborted).toBe(false)
  })

  it('is not needed for what it does not tell of', async () => {
    fake.watching = 'refused'
    const workload = await known()
    fake.pods = [PROXY]
    await until('the end', () => workload.signal.aborted || void clock.advance(50))
    expect(health.degraded).toEqual([])
  })

  it.each(['no_sync', 'drop', 'flood'] as const)('that goes wrong takes nothing away: %s', async (how) => {
    fake.watching = how
    const workload = await known()
    await watching()
    const before = answers
    await until('lists', () => answers > before + 5 || void clock.advance(50))
    expect(workload.signal.aborted).toBe(false)
    fake.pods = [PROXY]
    await until('the end', () => workload.signal.aborted || void clock.advance(50))
  })

  it('is read no further than its share of the time', async () => {
    fake.watching = 'flood'
    await known()
    await until('events', () => fake.events > 256 || void clock.advance(1))
    await until('a standstill', async () => {
      const before = fake.events
      for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve))
      return fake.events === before
    })
  })

  it('is opened again, each time after a longer wait', async () => {
    fake.watching = 'drop'
    await known()
    const times: number[] = []
    await until('five tries', () => {
      if (asked('WatchPods') > times.length) times.push(clock.monotonic())
      clock.advance(20)
      return times.length === 5
    })
    expect((times[4] ?? 0) - (times[3] ?? 0)).toBeGreaterThanOrEqual(1_500)
  })
})

describe('an answer of ListPods', () => {
  const { bytes } = JSON.parse(readFileSync(join(ROOT, 'test/vectors/pods-api.json'), 'utf8'))
  const real = Buffer.from(bytes, 'base64')
  const isListOrFault = (answer: Uint8Array) => {
    try {
      return parsePodMessages(Buffer.from(answer)).byUid.size >= 0
    } catch (caught) {
      return caught instanceof Fault && caught.reason === 'pod_facts_unavailable'
    }
  }

  it('that was damaged anywhere is a list or a refusal', () => {
    const place = fc.nat(real.length - 1)
    const damage = fc.record({ place, by: fc.uint8Array({ minLength: 1, maxLength: 9 }) })
    fc.assert(
      fc.property(fc.array(damage, { minLength: 1, maxLength: 5 }), (damages) => {
        const answer = Buffer.from(real)
        for (const { place, by } of damages) answer.set(by.subarray(0, real.length - place), place)
        return isListOrFault(answer)
      }),
      { numRuns: 2_000 },
    )
  })

  it('that ends anywhere, or is of any bytes, is a list or a refusal', () => {
    fc.assert(fc.property(fc.nat(real.length), (end) => isListOrFault(real.subarray(0, end))))
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), isListOrFault), { numRuns: 2_000 })
  })
})
