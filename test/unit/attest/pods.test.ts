import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Containers } from '../../../src/attest/containers.ts'
import { Attestation, type AttestedWorkload } from '../../../src/attest/identify.ts'
import type { InstanceLimits } from '../../../src/attest/instances.ts'
import { systemKernel } from '../../../src/attest/kernel.ts'
import { kubeletLists } from '../../../src/attest/kubelet.ts'
import { ListedPods } from '../../../src/attest/listed-pods.ts'
import type { OutageTold } from '../../../src/attest/outage.ts'
import type { PodRules } from '../../../src/attest/pod-facts.ts'
import { Fault } from '../../../src/base/fault.ts'
import { Live } from '../../../src/base/live.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { bookOfEntries, entry } from '../../support/book.ts'
import { ManualClock } from '../../support/clock.ts'
import type { FakeKubelet, FakePod } from '../../support/fake-kubelet.ts'
import { FakeKernel, type FakeProcess } from '../../support/kernel.ts'
import { type KubeletAccess, openKubeletAccess } from '../../support/kubelet-access.ts'
import { until } from '../../support/until.ts'

const UID = '0f9a1c2e-1111-4222-8333-444455556666'
const STATIC = '0123456789abcdef0123456789abcdef'
const [CID, NEXT, SIDE, PAUSE] = ['ab'.repeat(32), 'cd'.repeat(32), 'ef'.repeat(32), '99'.repeat(32)]
const CART: FakePod = {
  name: 'cart-1',
  uid: UID,
  serviceAccount: 'cart',
  labels: { app: 'cart', tier: 'front' },
  owners: [{ kind: 'ReplicaSet', name: 'cart', uid: 'r-1' }],
  containers: [
    { name: 'app', id: CID },
    { name: 'side', id: SIDE },
  ],
}
/** What every node has. */
const PROXY: FakePod = {
  name: 'kube-proxy-1',
  namespace: 'kube-system',
  uid: '0f9a1c2e-1111-4222-8333-00000000aaaa',
  containers: [{ name: 'kube-proxy', id: '77'.repeat(32) }],
}
const MANIFEST: FakePod = { ...PROXY, name: 'etcd-node-1', uid: STATIC, isStatic: true }
const SA = entry('cart', ['k8s:ns:shop', 'k8s:sa:cart'])
const BY_CONTAINER = entry('app', ['k8s:ns:shop', 'k8s:container-name:app'], { instance: 'container' })
const BY_POD = entry('pod', ['k8s:ns:shop', 'k8s:pod-name:cart-1'], { instance: 'pod' })
const BY_UID = entry('uid', ['unix:uid:1000'])
const RULES: PodRules = {
  labels: ['*'],
  terminating: 'serve',
  ephemeral: false,
  static: 'narrow',
  unlisted: 'refuse',
}

let access: KubeletAccess
let kubelet: FakeKubelet
let clock: ManualClock
let kernel: FakeKernel
let health: Health
let book: Live<ReturnType<typeof bookOfEntries>>
let attestation: Attestation
let answers: number
let told: OutageTold[]
beforeEach(async () => {
  access = await openKubeletAccess()
  ;({ kubelet } = access)
  kubelet.pods = [CART]
  clock = new ManualClock()
  kernel = new FakeKernel()
  health = new Health()
  book = new Live(bookOfEntries(SA, BY_CONTAINER, BY_POD, BY_UID))
  open()
})
afterEach(async () => {
  attestation.stop()
  await access.close()
})

function open(rules: Partial<PodRules> = {}, ownPod?: string, limits: Partial<InstanceLimits> = {}): void {
  const https = access.open()
  const lists = kubeletLists({ https, maxBytes: 1_000_000 })
  const source = new ListedPods({ lists, clock, health, every: 1_000, ownPod })
  answers = 0
  told = []
  const containers = new Containers({
    kubelet: source,
    clock,
    rules: { ...RULES, ...rules },
    maxAge: 5_000,
    outageAge: 3_600_000,
    kernel,
    onOutage: (each) => told.push(each),
  })
  const pods = { containers, cgroupRoot: 'auto', podUid: undefined }
  source.watch(() => {
    answers += 1
  })
  attestation = new Attestation({ clock, book, health, kernel, pods, limits })
}

const at = (id = CID, uid = UID) => ({
  cgroup: `0::/kubepods/besteffort/pod${uid}/${id}`,
  namespacePids: [42, 1],
})
const names = (workload: AttestedWorkload) => workload.entries().map((each) => each.name)
const attest = (process: FakeProcess) => attestation.attest(kernel.connect(process))

async function known(process: FakeProcess): Promise<AttestedWorkload> {
  const workload = attest(process)
  await workload.ready
  return workload
}

/** Lets time pass until the question is answered: a caller waits for a status that may still come. */
async function settled(process: FakeProcess): Promise<AttestedWorkload> {
  const workload = attest(process)
  let isReady = false
  void workload.ready?.then(() => {
    isReady = true
  })
  await until('the answer', () => {
    clock.advance(250)
    return isReady
  })
  return workload
}

/** The next list of the kubelet is there. */
async function polled(): Promise<void> {
  const before = answers
  clock.advance(1_000)
  await until('an answer', () => answers > before)
}

function refusal(workload: AttestedWorkload): string {
  try {
    workload.peer.check()
  } catch (caught) {
    return caught instanceof Fault ? `${caught.reason}: ${caught.message}` : String(caught)
  }
  return 'none'
}

/** A process in the pod that runs a real program, and an entry that rests on its hash. */
function hashed(pid: number): FakeProcess {
  const exe = `/proc/${pid}/exe`
  const [identity, version] = [systemKernel.fileIdentity(exe), systemKernel.fileVersion(exe)]
  if (identity === undefined) throw new Error('there is no program')
  kernel.files.set('/bin/app', identity)
  kernel.fileVersion = () => version
  const sha256 = createHash('sha256').update(readFileSync(exe)).digest('hex')
  book.set(bookOfEntries(entry('hashed', ['k8s:ns:shop', `unix:sha256:${sha256}`])))
  return kernel.start(pid, at())
}

describe('what a caller takes up', () => {
  const owners = (...processes: readonly FakeProcess[]) =>
    processes.map(({ pid, uid }) => attestation.ownerOf(pid, uid))

  it('is put on its pod, whatever uids and cgroups its containers have', () => {
    const [one, other, second, forged] = [
      kernel.start(41, { ...at(), uid: 0 }),
      kernel.start(42, { ...at(SIDE), uid: 1000 }),
      kernel.start(43, { ...at(NEXT, STATIC), uid: 0 }),
      kernel.start(44, { cgroup: `${at().cgroup}/kubepods/pod${STATIC}/${NEXT}` }),
    ]
    const pod = `the pod ${UID}`
    expect(owners(one, other, second, forged)).toEqual([pod, pod, `the pod ${STATIC}`, pod])
  })

  it('is put on its uid on the node, and on one budget where it is in no pod or gone', () => {
    attestation.stop()
    kernel.start(process.pid)
    open()
    const [host, odd, gone] = [
      kernel.start(41, { uid: 7 }),
      kernel.start(42, { cgroup: '0::/kubepods/besteffort/odd', uid: 7 }),
      kernel.start(43, { ...at(), uid: 7, isVisible: false }),
    ]
    expect(owners(host, odd, gone)).toEqual(['uid 7', 'callers of no pod', 'callers of no pod'])
  })

  it('counts the processes of a pod together', () => {
    attestation.stop()
    open({}, undefined, { processesPerOwner: 2 })
    const [one, other, third] = [1, 2, 3].map((uid) => kernel.start(uid, { ...at(), uid }))
    if (!one || !other || !third) throw new Error('no processes')
    attest(one)
    attest(other)
    expect(() => attest(third)).toThrow(`2 processes of the pod ${UID} hold identities`)
    attest(kernel.start(4, { ...at(NEXT, STATIC), uid: 1 }))
    attest(kernel.start(5, { uid: 1 }))
  })
})

describe('the hash of a program in a pod', () => {
  let child: ChildProcess
  beforeEach(async () => {
    child = spawn('sleep', ['60'])
    await once(child, 'spawn')
  })
  afterEach(() => void child.kill('SIGKILL'))

  it('is there before the first call, and stays when facts of the pod change', async () => {
    const workload = await known(hashed(child.pid ?? 0))
    expect(names(workload)).toEqual(['hashed'])
    kubelet.pods = [{ ...CART, labels: { app: 'other' } }]
    await polled()
    expect(workload.selectors).toContain('k8s:pod-label:app:other')
    expect(names(workload)).toEqual(['hashed'])
  })

  it('is read again on a later call when it could not be read', async () => {
    const process = hashed(child.pid ?? 0)
    const version = kernel.fileVersion('/bin/app')
    kernel.fileVersion = () => '1 1 1'
    const workload = await known(process)
    expect(names(workload)).toEqual([])
    kernel.fileVersion = () => version
    workload.peer.check()
    await workload.ready
    expect(names(workload)).toEqual(['hashed'])
  })
})

describe('a caller in a pod', () => {
  it('has the selectors of its pod and container, and entries that rest on them', async () => {
    const workload = await known(kernel.start(42, at()))
    expect(workload.selectors).toEqual(
      expect.arrayContaining([
        'unix:uid:1000',
        'k8s:ns:shop',
        'k8s:sa:cart',
        'k8s:pod-name:cart-1',
        `k8s:pod-uid:${UID}`,
        'k8s:pod-label:app:cart',
        'k8s:pod-owner:ReplicaSet:cart',
        'k8s:pod-owner-uid:ReplicaSet:r-1',
        'k8s:container-name:app',
        'k8s:container-image:docker.io/library/busybox:1',
        `k8s:container-image:docker.io/library/busybox@sha256:${'1'.repeat(64)}`,
        'k8s:node-name:node-1',
        'k8s:pod-image-count:2',
        'k8s:pod-init-image-count:0',
      ]),
    )
    expect(names(workload)).toEqual(['cart', 'app', 'pod'])
    expect(workload.notes).toEqual([])
    expect(refusal(workload)).toBe('none')
  })

  it('is told apart from the container beside it', async () => {
    expect(names(await known(kernel.start(42, at(SIDE))))).toEqual(['cart', 'pod'])
  })

  it('has only the labels that are wanted', async () => {
    attestation.stop()
    open({ labels: ['tier'] })
    const { selectors } = await known(kernel.start(42, at()))
    expect(selectors.filter((each) => each.startsWith('k8s:pod-label'))).toEqual(['k8s:pod-label:tier:front'])
  })

  it('is known although its status is written late', async () => {
    kubelet.pods = [{ ...CART, containers: [{ name: 'app' }] }]
    const process = kernel.start(42, at())
    const workload = attest(process)
    const { ready } = workload
    await until('a question', () => kubelet.asked.length === 1)
    expect(names(workload)).toEqual([])
    expect(refusal(workload)).not.toBe('none')
    kubelet.pods = [CART]
    let isReady = false
    void ready?.then(() => {
      isReady = true
    })
    await until('the answer', () => {
      clock.advance(250)
      return isReady
    })
    expect(names(workload)).toEqual(['cart', 'app', 'pod'])
  })

  it('shares one question with all who come at the same time', async () => {
    kubelet.pods = Array.from({ length: 20 }, (_, index) => {
      const uid = `${UID.slice(0, -2)}${10 + index}`
      return { ...CART, name: `cart-${index}`, uid, containers: [{ name: 'app', id: idOf(index) }] }
    })
    const workloads = kubelet.pods.map((pod, index) =>
      attest(kernel.start(100 + index, at(idOf(index), pod.uid))),
    )
    await Promise.all(workloads.map(({ ready }) => ready))
    expect(workloads.map((each) => names(each).includes('cart'))).toEqual(workloads.map(() => true))
    expect(kubelet.asked.length).toBeLessThanOrEqual(2)
  })

  it('is woken by a list that somebody else has asked for', async () => {
    kubelet.pods = [{ ...CART, containers: [{ name: 'app' }] }]
    const workload = attest(kernel.start(42, at()))
    const { ready } = workload
    await until('a list', () => answers === 1)
    kubelet.pods = [CART]
    await known(kernel.start(43, at(SIDE)))
    await ready
    expect(names(workload)).toContain('cart')
  })

  it('hears in time that it is none, although others keep coming while lists are made', async () => {
    kubelet.pods = [{ ...CART, containers: [{ name: 'app' }] }]
    const first = attest(kernel.start(42, at()))
    let pid = 100
    kubelet.onAsk = () => void attest(kernel.start(pid++, at()))
    let isReady = false
    void first.ready?.then(() => {
      isReady = true
    })
    await until('the answer', () => {
      clock.advance(50)
      return isReady
    })
    expect(refusal(first)).toMatch(/^pod_facts_unavailable: /)
  })

  it('asks for no more lists than one caller, when twenty wait for their statuses', async () => {
    const pods = Array.from({ length: 20 }, (_, index) => {
      const uid = `${UID.slice(0, -2)}${10 + index}`
      return { ...CART, name: `cart-${index}`, uid, containers: [{ name: 'app' }] }
    })
    const asked = async (count: number) => {
      kubelet.pods = pods.slice(0, count)
      const workloads = kubelet.pods.map(({ uid }, index) =>
        attest(kernel.start(100 + index, at(idOf(index), uid))),
      )
      const before = kubelet.asked.length
      for (let waited = 0; waited < 2_000; waited += 50) {
        clock.advance(50)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      for (const workload of workloads) workload.close()
      return kubelet.asked.length - before
    }
    expect(await asked(20)).toBeLessThanOrEqual((await asked(1)) + 1)
  })

  it.each([
    ['unknown', [], 'pod_unknown'],
    ['the pause container', [{ ...CART, containers: [{ name: 'app', id: SIDE }] }], 'container_refused'],
    [
      'an ended container',
      [{ ...CART, containers: [{ name: 'app', id: CID, state: 'terminated' }] }],
      'container_refused',
    ],
    [
      'the run before',
      [{ ...CART, containers: [{ name: 'app', id: SIDE, lastId: CID }] }],
      'container_refused',
    ],
    [
      'an ephemeral container',
      [{ ...CART, containers: [], ephemeral: [{ name: 'debug', id: CID }] }],
      'container_refused',
    ],
    [
      'claimed by two pods',
      [CART, { ...CART, name: 'other', uid: `${UID.slice(0, -1)}7` }],
      'container_refused',
    ],
    [
      'a container of another pod',
      [
        { ...CART, containers: [] },
        { ...CART, name: 'other', uid: `${UID.slice(0, -1)}7` },
      ],
      'container_refused',
    ],
    [
      'one whose status is not written',
      [{ ...CART, containers: [{ name: 'app', isUnwritten: true }] }],
      'pod_facts_unavailable',
    ],
    [
      'the run after the one that is listed',
      [{ ...CART, containers: [{ name: 'app', id: NEXT }] }],
      'pod_facts_unavailable',
    ],
  ] as const)('has nothing when it is %s', async (_what, pods, reason) => {
    kubelet.pods = pods
    kernel.start(43, at(SIDE))
    const workload = await settled(kernel.start(42, at()))
    expect(workload.selectors).toEqual([])
    expect(names(workload)).toEqual([])
    expect(refusal(workload)).toMatch(new RegExp(`^${reason}: `))
    expect(workload.notes.length).toBe(1)
  })

  it('may be an ephemeral one where the configuration lets it', async () => {
    attestation.stop()
    open({ ephemeral: true })
    kubelet.pods = [{ ...CART, containers: [], ephemeral: [{ name: 'debug', id: CID }] }]
    expect(names(await known(kernel.start(42, at())))).toContain('cart')
  })

  it('has nothing that only a manifest on the node claims', async () => {
    kubelet.pods = [{ ...CART, uid: STATIC, isStatic: true }]
    const { selectors } = await known(kernel.start(42, at(CID, STATIC)))
    expect(selectors.filter((each) => /^k8s:(?:ns|sa|pod-label|pod-owner)/.test(each))).toEqual([])
    expect(selectors).toContain('k8s:pod-name:cart-1')
  })

  it('has what a manifest claims, and no service account, where the configuration believes it', async () => {
    attestation.stop()
    open({ static: 'full' })
    const { serviceAccount: _none, ...manifest } = CART
    kubelet.pods = [{ ...manifest, uid: STATIC, isStatic: true }]
    const workload = await known(kernel.start(42, at(CID, STATIC)))
    expect(workload.selectors).toEqual(expect.arrayContaining(['k8s:ns:shop', 'k8s:pod-label:app:cart']))
    expect(workload.selectors.filter((each) => each.startsWith('k8s:sa:'))).toEqual([])
    expect(names(workload)).toEqual(['app', 'pod'])
  })

  it.each([
    ['in a container of no pod', { cgroup: `0::/system.slice/docker-${PAUSE}.scope` }],
    ['below a cgroup that was deleted', { cgroup: `0::/kubepods/pod${UID}/${CID} (deleted)` }],
    ['in a pid namespace of no pod', { namespacePids: [42, 1] }],
  ])('is refused %s', (_what, facts) => {
    const workload = attest(kernel.start(42, facts))
    expect(refusal(workload)).toMatch(/^container_refused: /)
    expect(names(workload)).toEqual([])
  })

  it('leaves callers on the node what they were', () => {
    expect(names(attest(kernel.start(42)))).toEqual(['uid'])
  })

  it.each([401, 403, 500, 'truncated', 'not_json', 'redirect'] as const)(
    'hears that the kubelet cannot be asked: %s',
    async (trouble) => {
      kubelet.trouble = trouble
      const workload = await known(kernel.start(42, at()))
      expect(refusal(workload)).toMatch(/^pod_facts_unavailable: /)
      expect(health.degraded.map(({ code }) => code)).toEqual(['kubelet_unavailable'])
      kubelet.trouble = 'none'
      await polled()
      expect(names(workload)).toEqual(['cart', 'app', 'pod'])
      expect([refusal(workload), health.degraded]).toEqual(['none', []])
    },
  )
})

describe('a container that is awaited, where such ones count,', () => {
  const [app] = CART.containers
  const young: FakePod = { ...CART, containers: [{ name: 'app', isUnwritten: true }] }
  beforeEach(() => {
    attestation.stop()
    open({ unlisted: 'awaited' })
    kubelet.pods = [young, PROXY]
  })

  it('has its identity and keys with the first list, and its image with the one that names it', async () => {
    const image = entry('image', [`k8s:container-image:docker.io/library/busybox:1`])
    book.set(bookOfEntries(SA, BY_CONTAINER, BY_POD, image))
    const workload = await known(kernel.start(42, at()))
    expect(names(workload)).toEqual(['cart', 'app', 'pod'])
    const signals = [SA, BY_CONTAINER, BY_POD].map((each) => workload.instanceOf(each).signal)
    kubelet.pods = [{ ...CART, containers: app ? [app] : [] }, PROXY]
    await polled()
    expect(names(workload)).toEqual(['cart', 'app', 'pod', 'image'])
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, false, false])
  })

  it('is not the one beside it that was started anew a moment ago', async () => {
    const [side] = [entry('side', ['k8s:container-name:side'])]
    book.set(bookOfEntries(side))
    kubelet.pods = [
      {
        ...CART,
        containers: [
          { name: 'app', id: CID },
          { name: 'side', isUnwritten: true },
        ],
      },
      PROXY,
    ]
    const first = kernel.start(41, at())
    await attestation.explainPod('shop', 'cart-1')
    kernel.end(first)
    clock.advance(100)
    const workload = await settled(kernel.start(42, at(NEXT)))
    expect(names(workload)).toEqual([])
    expect(refusal(workload)).toMatch(
      /^pod_facts_unavailable: .*running app of which no process is left|and side as not running yet/,
    )
  })

  it('is not told from a list that is older than its connection', async () => {
    const debugged: FakePod = { ...young, ephemeral: [{ name: 'debug', isUnwritten: true }] }
    let workload: AttestedWorkload | undefined
    let isReady = false
    kubelet.onAsk = () => {
      if (workload) kubelet.pods = [debugged, PROXY]
      clock.advance(1)
      workload ??= attest(kernel.start(42, at()))
    }
    await known(kernel.start(44, at('77'.repeat(32), PROXY.uid)))
    void workload?.ready?.then(() => {
      isReady = true
    })
    await until('the answer', () => {
      clock.advance(250)
      return isReady
    })
    expect(workload && refusal(workload)).toMatch(/^pod_facts_unavailable: /)
  })

  it('is over when it is not listed for a minute, though no list says anything new', async () => {
    const workload = await known(kernel.start(42, at()))
    for (let second = 0; second < 58; second++) clock.advance(1_000)
    await polled()
    expect(workload.signal.aborted).toBe(false)
    clock.advance(2_000)
    await polled()
    expect((workload.signal.reason as Fault | undefined)?.reason).toBe('lease_ended')
  })

  it('has no other minute when its callers come again', async () => {
    const process = kernel.start(42, at())
    const workload = await known(process)
    for (let second = 0; second < 40; second++) clock.advance(1_000)
    workload.close()
    for (let second = 0; second < 21; second++) clock.advance(1_000)
    expect(refusal(await settled(process))).toMatch(/^pod_facts_unavailable: /)
  })

  it('has to be listed when it was, though its callers had gone', async () => {
    const process = kernel.start(42, at())
    kubelet.pods = [{ ...CART, containers: app ? [app] : [] }, PROXY]
    const workload = await known(process)
    workload.close()
    kubelet.pods = [{ ...CART, containers: [{ name: 'app', lastId: CID }] }, PROXY]
    expect(refusal(await settled(process))).toMatch(/^pod_facts_unavailable: /)
  })

  it('has to be listed from the time that it was', async () => {
    const workload = await known(kernel.start(42, at()))
    kubelet.pods = [{ ...CART, containers: app ? [app] : [] }, PROXY]
    await polled()
    expect(workload.signal.aborted).toBe(false)
    kubelet.pods = [{ ...CART, containers: [{ name: 'app', lastId: CID }] }, PROXY]
    await polled()
    expect((workload.signal.reason as Fault | undefined)?.reason).toBe('lease_ended')
  })
})

const idOf = (index: number) => index.toString(16).padStart(64, '0')

describe('the life of a pod', () => {
  const ended = (workload: AttestedWorkload, ...signals: readonly AbortSignal[]) =>
    [workload.signal, ...signals].map(({ aborted }) => aborted)

  it.each([
    ['its pod is gone', [PROXY]],
    ['its pod has another UID', [{ ...CART, uid: `${UID.slice(0, -1)}7` }]],
    ['it was restarted', [{ ...CART, containers: [{ name: 'app', id: NEXT, lastId: CID }] }]],
    ['it has ended', [{ ...CART, containers: [{ name: 'app', id: CID, state: 'terminated' as const }] }]],
  ])('ends streams and keys with the next list when %s', async (_what, pods) => {
    const workload = await known(kernel.start(42, at()))
    const keys = [SA, BY_CONTAINER, BY_POD].map((each) => workload.instanceOf(each).signal)
    await polled()
    expect(ended(workload, ...keys)).toEqual([false, false, false, false])
    kubelet.pods = pods
    await polled()
    expect(ended(workload, ...keys).slice(0, 3)).toEqual([true, true, true])
    expect((workload.signal.reason as Fault).reason).toBe('lease_ended')
  })

  it('goes on by old facts while the kubelet is down, which is told once, and once that it is over', async () => {
    const [app, side] = [await known(kernel.start(42, at())), await known(kernel.start(43, at(SIDE)))]
    kubelet.trouble = 500
    for (let second = 0; second < 5; second++) await polled()
    expect(told).toEqual([])
    for (let second = 0; second < 3; second++) await polled()
    expect(told).toEqual([{ isOver: false, containers: 2 }])
    expect(ended(app)).toEqual([false])

    // It is not over because somebody has left.
    side.close()
    await polled()
    kubelet.trouble = 'none'
    await polled()
    await polled()
    expect(told.slice(1)).toEqual([{ isOver: true, containers: 1 }])

    kubelet.trouble = 'truncated'
    for (let second = 0; second < 8; second++) await polled()
    expect(told).toHaveLength(3)
  })

  it('has nothing to tell of an outage in which nobody is served by old facts', async () => {
    kubelet.trouble = 500
    const workload = await known(kernel.start(42, at()))
    for (let second = 0; second < 8; second++) await polled()
    expect([refusal(workload), told]).toEqual([expect.stringMatching(/^pod_facts_unavailable/), []])
  })

  it('ends keys that outlive their connection', async () => {
    const workload = await known(kernel.start(42, at()))
    const { signal } = workload.instanceOf(SA)
    workload.close()
    kubelet.pods = [PROXY]
    await polled()
    expect(signal.aborted).toBe(true)
    expect(attestation.counts).toEqual({ connections: 0, instances: 0 })
  })

  it('gives a restarted container another key, and its pod the same', async () => {
    const first = await known(kernel.start(42, at()))
    const before = [BY_CONTAINER, BY_POD].map((each) => first.instanceOf(each).key)
    kubelet.pods = [{ ...CART, containers: [{ name: 'app', id: NEXT, lastId: CID }] }]
    const second = await known(kernel.start(43, at(NEXT)))
    const after = [BY_CONTAINER, BY_POD].map((each) => second.instanceOf(each).key)
    expect(after[0]).not.toBe(before[0])
    expect(after[1]).toBe(before[1])
  })

  it('ends the key of a pod with the pod, not with the container that asked first', async () => {
    const first = await known(kernel.start(42, at()))
    const { key, signal } = first.instanceOf(BY_POD)
    const second = await known(kernel.start(43, at(SIDE)))
    expect(second.instanceOf(BY_POD).signal).toBe(signal)
    const [, side] = CART.containers
    const lists: readonly (readonly [string, FakePod, boolean])[] = [
      [
        'its first container restarts',
        { ...CART, containers: [{ name: 'app', id: NEXT }, ...(side ? [side] : [])] },
        false,
      ],
      ['all of them wait', { ...CART, containers: [{ name: 'app' }, { name: 'side' }] }, false],
      ['no states are known', { ...CART, containers: [] }, false],
      ['one runs again', { ...CART, containers: [{ name: 'app', id: PAUSE }] }, false],
      ['it has failed', { ...CART, phase: 'Failed', containers: [{ name: 'app', id: PAUSE }] }, true],
    ]
    for (const [what, pod, isOver] of lists) {
      kubelet.pods = [pod, PROXY]
      await polled()
      expect(signal.aborted, what).toBe(isOver)
      if (what === 'one runs again')
        expect((await known(kernel.start(44, at(PAUSE)))).instanceOf(BY_POD).key).toBe(key)
    }
  })

  it('ends the key of a pod when none of its containers has the entry any more', async () => {
    const labelled = entry('web', ['k8s:ns:shop', 'k8s:pod-label:app:cart'], { instance: 'pod' })
    book.set(bookOfEntries(SA, labelled))
    const workload = await known(kernel.start(42, at()))
    const { signal } = workload.instanceOf(labelled)
    workload.close()
    await polled()
    expect(signal.aborted).toBe(false)
    kubelet.pods = [{ ...CART, labels: { app: 'other' } }, PROXY]
    await polled()
    expect((signal.reason as Fault | undefined)?.message).toBe('the facts of the pod have changed')
    expect(attestation.counts).toEqual({ connections: 0, instances: 0 })
  })

  it('ends the key of a pod without connections when the kubelet has not answered for an hour', async () => {
    const workload = await known(kernel.start(42, at()))
    const { signal } = workload.instanceOf(BY_POD)
    workload.close()
    kubelet.trouble = 500
    await polled()
    expect(signal.aborted).toBe(false)
    clock.advance(3_600_000)
    await polled()
    expect((signal.reason as Fault | undefined)?.reason).toBe('pod_facts_unavailable')
  })

  it('ends what a changed label gave, and keeps the rest', async () => {
    book.set(bookOfEntries(SA, entry('web', ['k8s:ns:shop', 'k8s:pod-label:app:cart'])))
    const workload = await known(kernel.start(42, at()))
    const [cart, web] = workload.entries().map((each) => workload.instanceOf(each).signal)
    kubelet.pods = [{ ...CART, labels: { app: 'other' } }]
    await polled()
    expect([workload.signal.aborted, cart?.aborted, web?.aborted]).toEqual([false, false, true])
    expect(names(workload)).toEqual(['cart'])
  })

  it.each([
    ['serve', false],
    ['end', true],
  ] as const)('while it is being deleted is what the configuration says: %s', async (terminating, isOver) => {
    attestation.stop()
    open({ terminating })
    const workload = await known(kernel.start(42, at()))
    kubelet.pods = [{ ...CART, deleted: true }]
    await polled()
    expect(workload.signal.aborted).toBe(isOver)
  })

  it.each([500, 401, 'truncated', 'not_json'] as const)(
    'goes on while the kubelet fails with %s',
    async (trouble) => {
      const process = kernel.start(42, at())
      const workload = await known(process)
      kubelet.trouble = trouble
      kubelet.pods = []
      await polled()
      await polled()
      expect(workload.signal.aborted).toBe(false)
      expect(names(await known(process))).toEqual(['cart', 'app', 'pod'])
      expect(refusal(await known(kernel.start(50, at(NEXT))))).toMatch(/^pod_facts_unavailable: /)
    },
  )

  it('goes on for a minute while a kubelet that has just started knows no states', async () => {
    const process = kernel.start(42, at())
    const workload = await known(process)
    const key = workload.instanceOf(BY_POD).key
    kubelet.pods = [{ ...CART, containers: [] }, PROXY]
    clock.advance(58_000)
    await polled()
    expect(workload.signal.aborted).toBe(false)
    // Served at once, by what was known.
    const second = await known(process)
    expect(names(second)).toEqual(['cart', 'app', 'pod'])
    expect(second.instanceOf(BY_POD).key).toBe(key)
    await polled()
    expect(workload.signal.aborted).toBe(false)
    await polled()
    expect((workload.signal.reason as Fault | undefined)?.message).toMatch(/has no container of that ID/)
    expect(names(await settled(process))).toEqual([])
  })

  it.each([
    ['nothing', []],
    ['pods of its manifests alone', [MANIFEST]],
  ])('goes on while a kubelet that has just started lists %s, for ten seconds', async (_what, pods) => {
    const process = kernel.start(42, at())
    const workload = await known(process)
    kubelet.pods = pods
    clock.advance(9_000)
    await polled()
    expect([workload.signal.aborted, refusal(await known(process))]).toEqual([false, 'none'])
    expect(refusal(await known(kernel.start(43, at(NEXT))))).toMatch(/^pod_facts_unavailable: .*just started/)
    await polled()
    await polled()
    expect((workload.signal.reason as Fault | undefined)?.reason).toBe('lease_ended')
  })

  it('goes on while the list lacks the pod of the agent, and ends with the first that has it', async () => {
    attestation.stop()
    open({}, MANIFEST.uid)
    kubelet.pods = [CART, MANIFEST]
    const workload = await known(kernel.start(42, at()))
    kubelet.pods = [PROXY]
    clock.advance(600_000)
    await polled()
    expect(workload.signal.aborted).toBe(false)
    expect(health.degraded.map(({ message }) => message)).toEqual([
      'the kubelet lists 1 pods and not the one of the agent: it has just started',
    ])
    kubelet.pods = [PROXY, MANIFEST]
    await polled()
    expect([workload.signal.aborted, health.degraded]).toEqual([true, []])
  })

  it('ends when the kubelet has not answered for an hour', async () => {
    const workload = await known(kernel.start(42, at()))
    kubelet.trouble = 500
    await polled()
    clock.advance(3_600_000)
    await polled()
    expect((workload.signal.reason as Fault | undefined)?.reason).toBe('pod_facts_unavailable')
  })

  it('asks nobody when nothing hangs on it', async () => {
    const process = kernel.start(42, at())
    const workload = await known(process)
    workload.close()
    const before = kubelet.asked.length
    clock.advance(60_000)
    await new Promise((resolve) => setImmediate(resolve))
    expect(kubelet.asked.length).toBe(before)
  })
})
