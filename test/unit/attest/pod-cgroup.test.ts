import { describe, expect, it } from 'vitest'
import { parseCgroups } from '../../../src/attest/cgroup.ts'
import { PodCgroups, type PodPlace } from '../../../src/attest/pod-cgroup.ts'

const UID = '0f9a1c2e-1111-4222-8333-444455556666'
const UNDERSCORED = UID.replaceAll('-', '_')
const STATIC = '0123456789abcdef0123456789abcdef'
const VICTIM = 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee'
const OWN_UID = '99999999-8888-4777-8666-555555555555'
const [CID, VICTIM_ID, OWN_ID] = ['ab'.repeat(32), 'cd'.repeat(32), 'ef'.repeat(32)]
const V1 = [
  'name=systemd',
  'pids',
  'memory',
  'cpu,cpuacct',
  'devices',
  'freezer',
  'net_cls',
  'blkio',
  'hugetlb',
]

const v1 = (path: string, v2 = path) =>
  [...V1.map((name, index) => `${V1.length - index}:${name}:${path}`), `0::${v2}`].join('\n')
const v2 = (path: string) => `0::${path}\n`

/** From where the agent sees: its own lines and the parent of kubepods. */
interface View {
  readonly own: string
  readonly root?: string
  readonly podUid?: string
}
const HOST: View = { own: v2('/system.slice/holdfast.service') }
const HOST_V1: View = { own: v1('/system.slice/holdfast.service') }
const IN_POD: View = { own: v2('/'), podUid: OWN_UID }
const IN_POD_V1: View = { own: v1(`/kubepods/besteffort/pod${OWN_UID}/${OWN_ID}`), podUid: OWN_UID }
const IN_KIND: View = {
  own: v1(`/docker/${'12'.repeat(32)}/kubepods/besteffort/pod${OWN_UID}/${OWN_ID}`),
  podUid: OWN_UID,
}
const LAB: View = { own: v2('/'), root: '/kubelab' }

function place(view: View, text: string): PodPlace {
  const { own, root = 'auto', podUid } = view
  return new PodCgroups({ own: parseCgroups(own), root, podUid }).place(parseCgroups(text))
}

function short(found: PodPlace): string {
  if (found.kind === 'container') return `${found.podUid ?? '?'} ${found.containerId}`
  return found.kind === 'refused' ? 'refused' : found.kind
}

/** Every shape of a container at `CID`, and the pod that its path names. */
const CONTAINERS: readonly (readonly [string, View, string, string])[] = [
  ['v2 cgroupfs, besteffort', HOST, v2(`/kubepods/besteffort/pod${UID}/${CID}`), UID],
  ['v2 cgroupfs, burstable', HOST, v2(`/kubepods/burstable/pod${UID}/${CID}`), UID],
  ['v2 cgroupfs, guaranteed', HOST, v2(`/kubepods/pod${UID}/${CID}`), UID],
  ['v2 cgroupfs, static', HOST, v2(`/kubepods/pod${STATIC}/${CID}`), STATIC],
  [
    'v2 systemd, besteffort',
    HOST,
    v2(
      `/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${UNDERSCORED}.slice/cri-containerd-${CID}.scope`,
    ),
    UID,
  ],
  [
    'v2 systemd, guaranteed',
    HOST,
    v2(`/kubepods.slice/kubepods-pod${UNDERSCORED}.slice/cri-containerd-${CID}.scope`),
    UID,
  ],
  [
    'v2 systemd, static',
    HOST,
    v2(`/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${STATIC}.slice/crio-${CID}.scope`),
    STATIC,
  ],
  [
    'docker on systemd',
    HOST,
    v2(
      `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${UNDERSCORED}.slice/docker-${CID}.scope`,
    ),
    UID,
  ],
  [
    'CRI-O on systemd with the child of crun',
    HOST,
    v2(`/kubepods.slice/kubepods-pod${UNDERSCORED}.slice/crio-${CID}.scope/container`),
    UID,
  ],
  ['CRI-O on cgroupfs', HOST, v2(`/kubepods/burstable/pod${UID}/crio-${CID}`), UID],
  [
    'the colons of two drivers',
    HOST,
    v2(
      `/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${UNDERSCORED}.slice:cri-containerd:${CID}`,
    ),
    UID,
  ],
  [
    'the colons below containerd',
    HOST_V1,
    v1(`/system.slice/containerd.service/kubepods-besteffort-pod${UNDERSCORED}.slice:cri-containerd:${CID}`),
    UID,
  ],
  [
    'the colons at the root',
    HOST,
    v2(`/kubepods-besteffort-pod${UNDERSCORED}.slice:cri-containerd:${CID}`),
    UID,
  ],
  ['v1 cgroupfs', HOST_V1, v1(`/kubepods/burstable/pod${UID}/${CID}`), UID],
  [
    'v1 whose v2 hierarchy is not used',
    HOST_V1,
    v1(`/kubepods/burstable/pod${UID}/${CID}`, '/system.slice/containerd.service'),
    UID,
  ],
  ['v1 with a hierarchy at its root', HOST_V1, `${v1(`/kubepods/pod${UID}/${CID}`)}\n10:rdma:/`, UID],
  ['v1 from a pod', IN_POD_V1, v1(`/kubepods/burstable/pod${UID}/${CID}`), UID],
  ['kind on v1', IN_KIND, v1(`/docker/${'12'.repeat(32)}/kubepods/burstable/pod${UID}/${CID}`), UID],
  [
    'kind on v2',
    { own: v2('/init.scope'), root: '/kubelet.slice' },
    v2(
      `/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${UNDERSCORED}.slice/cri-containerd-${CID}.scope`,
    ),
    UID,
  ],
  ['a root of the kubelet’s own', LAB, v1(`/kubelab/kubepods/besteffort/pod${UID}/${CID}`), UID],
  [
    'a root found from the agent’s own place',
    { own: v1(`/kubelab/kubepods/pod${OWN_UID}/${OWN_ID}`) },
    v1(`/kubelab/kubepods/besteffort/pod${UID}/${CID}`),
    UID,
  ],
  [
    'a cluster in a pod of another',
    {
      own: v1(`/kubepods/pod${VICTIM}/${VICTIM_ID}/kubepods/pod${OWN_UID}/${OWN_ID}`),
      podUid: OWN_UID,
    },
    v1(`/kubepods/pod${VICTIM}/${VICTIM_ID}/kubepods/burstable/pod${UID}/${CID}`),
    UID,
  ],
  ['v2 from a pod, another class', IN_POD, v2(`/../../../burstable/pod${UID}/${CID}`), UID],
  ['v2 from a pod, guaranteed', IN_POD, v2(`/../../../pod${UID}/${CID}`), UID],
  ['v2 from a pod, the same class', IN_POD, v2(`/../../pod${UID}/${CID}`), UID],
  ['v2 from a pod, static', IN_POD, v2(`/../../../pod${STATIC}/${CID}`), STATIC],
  [
    'v2 systemd from a pod',
    IN_POD,
    v2(
      `/../../../kubepods-burstable.slice/kubepods-burstable-pod${UNDERSCORED}.slice/cri-containerd-${CID}.scope`,
    ),
    UID,
  ],
  [
    'v2 systemd from a pod, the same class',
    IN_POD,
    v2(`/../../kubepods-besteffort-pod${UNDERSCORED}.slice/cri-containerd-${CID}.scope`),
    UID,
  ],
  [
    'v2 from a pod of crun',
    IN_POD,
    v2(
      `/../../../../kubepods-burstable.slice/kubepods-burstable-pod${UNDERSCORED}.slice/crio-${CID}.scope/container`,
    ),
    UID,
  ],
  ['another container of the agent’s pod', IN_POD, v2(`/../${CID}`), OWN_UID],
  ['another container of the agent’s pod, CRI-O', IN_POD, v2(`/../crio-${CID}.scope`), OWN_UID],
  ['another container of a pod without a name', { own: v2('/') }, v2(`/../${CID}`), '?'],
  [
    'the colons from a pod',
    IN_POD,
    v2(`/../kubepods-besteffort-pod${UNDERSCORED}.slice:cri-containerd:${CID}`),
    UID,
  ],
]

describe('the place of a process', () => {
  it.each(CONTAINERS)('is a container: %s', (_what, view, text, uid) => {
    expect(short(place(view, text))).toBe(`${uid} ${CID}`)
  })

  it.each([
    ['the root', HOST, v2('/')],
    ['a daemon', HOST, v2('/system.slice/sshd.service')],
    ['a login', HOST, v2('/user.slice/user-1000.slice/session-3.scope')],
    ['a daemon seen from a pod', IN_POD, v2('/../../../../system.slice/sshd.service')],
    ['the root seen from a pod', IN_POD, v2('/../../../..')],
    ['a process of the agent’s container', IN_POD, v2('/')],
    ['a container of no pod', HOST, v2(`/system.slice/docker-${CID}.scope`)],
    ['a container of no pod seen from a pod', IN_POD, v2(`/../../../../system.slice/docker-${CID}.scope`)],
    ['a tree of the same names elsewhere', HOST, v2(`/user.slice/kubepods/pod${UID}/${CID}`)],
    [
      'a tree of the same names in a user’s own',
      HOST,
      v2(`/user.slice/user-1000.slice/user@1000.service/kubepods/pod${UID}/${CID}`),
    ],
    [
      'the colons below a service that is no runtime',
      HOST,
      v2(`/system.slice/app.service/kubepods-pod${UNDERSCORED}.slice:cri-containerd:${CID}`),
    ],
    ['kubepods of another root', LAB, v1(`/kubepods/besteffort/pod${UID}/${CID}`)],
    ['a user’s tree seen from a pod', IN_POD, v2(`/../../../../user.slice/kubepods/pod${UID}/${CID}`)],
  ])('is outside of pods: %s', (_what, view, text) => {
    expect(short(place(view, text))).toBe('outside')
  })

  it.each([
    ['a deleted cgroup', HOST, v2(`/kubepods/pod${UID}/${CID} (deleted)`)],
    [
      'the monitor of CRI-O',
      HOST,
      v2(`/kubepods.slice/kubepods-pod${UNDERSCORED}.slice/crio-conmon-${CID}.scope`),
    ],
    ['a monitor seen from its pod', IN_POD, v2(`/../crio-conmon-${CID}.scope`)],
    ['a pod without a container', HOST, v2(`/kubepods/burstable/pod${UID}`)],
    ['the class of pods', HOST, v2('/kubepods/burstable')],
    ['kubepods', HOST, v2('/kubepods')],
    ['an upper-case ID', HOST, v2(`/kubepods/pod${UID}/${CID.toUpperCase()}`)],
    ['63 digits', HOST, v2(`/kubepods/pod${UID}/${CID.slice(1)}`)],
    ['65 digits', HOST, v2(`/kubepods/pod${UID}/${CID}a`)],
    ['an unknown runtime', HOST, v2(`/kubepods.slice/kubepods-pod${UNDERSCORED}.slice/runsc-${CID}.scope`)],
    ['an upper-case UID', HOST, v2(`/kubepods/pod${UID.toUpperCase()}/${CID}`)],
    ['31 digits of a UID', HOST, v2(`/kubepods/pod${STATIC.slice(1)}/${CID}`)],
    ['no pod before the container', HOST, v2(`/kubepods/burstable/${CID}`)],
    [
      'a pod below another class',
      HOST,
      v2(
        `/kubepods.slice/other-kubepods-burstable.slice/kubepods-burstable-pod${UNDERSCORED}.slice/crio-${CID}.scope`,
      ),
    ],
    ['a path that climbs on its way', IN_POD, v2(`/../../pod${UID}/../pod${VICTIM}/${CID}`)],
    ['no lines at all', HOST, ''],
    [
      'two hierarchies in two pods',
      HOST_V1,
      v1(`/kubepods/pod${UID}/${CID}`, `/kubepods/pod${VICTIM}/${VICTIM_ID}`),
    ],
    [
      'two hierarchies in two containers',
      HOST_V1,
      v1(`/kubepods/pod${UID}/${CID}`, `/kubepods/pod${UID}/${VICTIM_ID}`),
    ],
    ['a hierarchy that is elsewhere', HOST_V1, v1(`/kubepods/pod${UID}/${CID}`, '/user.slice')],
    ['a hierarchy in the pod only', HOST_V1, v1(`/kubepods/pod${UID}/${CID}`, `/kubepods/pod${UID}`)],
  ])('is refused: %s', (_what, view, text) => {
    expect(short(place(view, text))).toBe('refused')
  })

  it('is the agent’s own where the container is', () => {
    expect(short(place(IN_POD_V1, v1(`/kubepods/besteffort/pod${OWN_UID}/${OWN_ID}`)))).toBe('own')
    expect(short(place(IN_POD_V1, v1(`/kubepods/besteffort/pod${OWN_UID}/${CID}`)))).toBe(`${OWN_UID} ${CID}`)
  })
})

describe('a container that makes cgroups below its own', () => {
  const FORGED = [
    `pod${VICTIM}/${VICTIM_ID}`,
    `burstable/pod${VICTIM}/${VICTIM_ID}`,
    `kubepods/burstable/pod${VICTIM}/${VICTIM_ID}`,
    `pod${STATIC}/${VICTIM_ID}`,
    VICTIM_ID,
    `cri-containerd-${VICTIM_ID}.scope`,
    `kubepods-pod${VICTIM.replaceAll('-', '_')}.slice:cri-containerd:${VICTIM_ID}`,
    `kubepods.slice/kubepods-pod${VICTIM.replaceAll('-', '_')}.slice/cri-containerd-${VICTIM_ID}.scope`,
    'init',
    'a:b:c',
  ]
  const cases = CONTAINERS.flatMap(([what, view, text, uid]) =>
    FORGED.map((below) => [what, below, view, text, uid] as const),
  )

  it.each(cases)('%s stays what it is with %s', (_what, below, view, text, uid) => {
    const nested = text
      .split('\n')
      .map((line) => (line.includes(CID) ? `${line}/${below}` : line))
      .join('\n')
    expect(short(place(view, nested))).toBe(`${uid} ${CID}`)
  })

  it('never becomes another by a random path below it, in all hierarchies or in some', () => {
    const words = [...FORGED.flatMap((each) => each.split('/')), 'kubepods', 'pod', 'besteffort', 'x']
    let seed = 7
    const random = (limit: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
      return seed % limit
    }
    for (let round = 0; round < 5_000; round++) {
      const [, view, text, uid] = CONTAINERS[random(CONTAINERS.length)] ?? CONTAINERS[0] ?? []
      if (!view || !text) throw new Error('no case')
      const below = Array.from({ length: 1 + random(6) }, () => words[random(words.length)]).join('/')
      const nested = text
        .split('\n')
        .map((line) => (line.includes(CID) && random(2) === 0 ? `${line}/${below}` : line))
        .join('\n')
      expect(short(place(view, nested)), nested).toBe(`${uid} ${CID}`)
    }
  })
})
