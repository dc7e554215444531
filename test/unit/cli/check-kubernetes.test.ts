import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { check } from '../../../src/cli/check.ts'
import { kubernetesGroup } from '../../../src/cli/check-kubernetes.ts'
import { type PodsApiUse, podsApiFinding } from '../../../src/cli/check-pods-api.ts'
import { keptIo } from '../../support/io.ts'

/** An API server behind `kubectl proxy`: what it answers for a path, and what the agent may do. */
interface Answers {
  readonly objects: Record<string, unknown>
  readonly allowed: Set<string>
  readonly status: Record<string, number>
}

const GOOD_OBJECTS = {
  '/version': { gitVersion: 'v1.37.2', major: '1', minor: '37' },
  '/api/v1/namespaces/holdfast-system': {
    metadata: { name: 'holdfast-system', labels: { 'pod-security.kubernetes.io/enforce': 'privileged' } },
  },
  '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings': {
    items: [{ spec: { policyName: 'holdfast-mounts', validationActions: ['Deny'] } }],
  },
  '/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent': {
    metadata: { generation: 4 },
    spec: { template: { spec: { hostPID: true } } },
    status: {
      observedGeneration: 4,
      desiredNumberScheduled: 3,
      numberReady: 3,
      numberAvailable: 3,
      updatedNumberScheduled: 3,
    },
  },
  '/apis/networking.k8s.io/v1/networkpolicies': { items: [] },
}

/** The DaemonSet of a good cluster, and in its status what a test says. */
function agents(status: object): unknown {
  const good = GOOD_OBJECTS['/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent']
  return { ...good, status: { ...good.status, ...status } }
}

let answers: Answers
let server: Server
let url: string
let asked: { readonly user: string; readonly groups: readonly string[] }[]

beforeEach(async () => {
  asked = []
  answers = { objects: { ...GOOD_OBJECTS }, allowed: new Set(['get nodes/pods']), status: {} }
  server = createServer(async (request, response) => {
    const path = request.url ?? ''
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const status = answers.status[path]
    if (status !== undefined) return response.writeHead(status).end('{}')
    if (path.endsWith('subjectaccessreviews')) {
      const { spec } = JSON.parse(Buffer.concat(chunks).toString())
      const { verb, resource, subresource } = spec.resourceAttributes
      asked.push({ user: spec.user, groups: spec.groups })
      const allowed = answers.allowed.has(`${verb} ${resource}${subresource ? `/${subresource}` : ''}`)
      return response.writeHead(201).end(JSON.stringify({ status: { allowed } }))
    }
    const found = answers.objects[path]
    return response.writeHead(found ? 200 : 404).end(JSON.stringify(found ?? { kind: 'Status', code: 404 }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

const io = () => keptIo({ environment: { pod: undefined } })
const grades = async (options: { readonly pre?: boolean; readonly namespace?: string } = {}) => {
  const { findings } = await kubernetesGroup({ server: url, ...options }, io())
  return findings.map(({ id, grade }) => `${id} ${grade}`)
}
const findingOf = async (id: string) =>
  (await kubernetesGroup({ server: url }, io())).findings.find((finding) => finding.id === id)

describe('kubernetesGroup', () => {
  it('finds nothing wrong with a good cluster, and asks as the service account of the agent', async () => {
    expect(await grades()).toEqual([
      'k8s_version ok',
      'k8s_namespace ok',
      'k8s_rights ok',
      'k8s_powers ok',
      'k8s_list_pods ok',
      'k8s_admission ok',
      'k8s_agents ok',
      'k8s_egress ok',
    ])
    expect(asked[0]).toEqual({
      user: 'system:serviceaccount:holdfast-system:holdfast-agent',
      groups: ['system:serviceaccounts', 'system:serviceaccounts:holdfast-system', 'system:authenticated'],
    })
  })

  it.each([
    ['get nodes/proxy', 'k8s_powers error'],
    ['create pods/exec', 'k8s_powers error'],
    ['create serviceaccounts/token', 'k8s_powers error'],
    ['get secrets', 'k8s_powers error'],
    ['list pods', 'k8s_list_pods warn'],
  ])('refuses an agent that may %s', async (right, expected) => {
    answers.allowed.add(right)
    expect(await grades()).toContain(expected)
  })

  it('fails when the kubelet would not tell the agent its pods', async () => {
    answers.allowed.clear()
    expect(await grades()).toContain('k8s_rights error')
  })

  describe('where the agents mount the socket of the Pods API', () => {
    const mount = { name: 'pods-api', mountPath: '/var/lib/kubelet/pods-api' }
    const spec = { hostPID: true, containers: [{ volumeMounts: [mount] }] }
    beforeEach(() => {
      answers.objects['/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent'] = {
        spec: { template: { spec } },
        status: { desiredNumberScheduled: 3, numberReady: 3 },
      }
    })

    it('wants no right', async () => {
      expect(await grades()).toEqual(expect.arrayContaining(['k8s_pods_api ok', 'k8s_rights warn']))
      answers.allowed.clear()
      expect(await grades()).toContain('k8s_rights ok')
    })

    it.each([
      ['36', 'k8s_pods_api warn'],
      ['35', 'k8s_pods_api error'],
    ])('wants a kubelet that has it: 1.%s', async (minor, expected) => {
      answers.objects['/version'] = { gitVersion: `v1.${minor}.0`, minor }
      expect(await grades()).toContain(expected)
    })

    it('looks at the socket from a pod of the agent', async () => {
      const found = (use: PodsApiUse) => podsApiFinding(use, { minor: '37' }, { isSelf: true })
      const says = expect.stringMatching(/does not exist/)
      expect(await found('only')).toMatchObject({ grade: 'error', what: says })
      expect(await found('auto')).toMatchObject({ grade: 'ok', what: says })
    })

    it('wants the right where they go without it (attestor: auto)', async () => {
      const hostPath = { path: '/var/lib/kubelet/pods-api', type: 'DirectoryOrCreate' }
      const volumes = [{ name: 'pods-api', hostPath }]
      answers.objects['/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent'] = {
        spec: { template: { spec: { ...spec, volumes } } },
        status: { desiredNumberScheduled: 3, numberReady: 3 },
      }
      answers.objects['/version'] = { gitVersion: 'v1.35.0', minor: '35' }
      expect(await grades()).toEqual(expect.arrayContaining(['k8s_pods_api ok', 'k8s_rights ok']))
      answers.allowed.clear()
      expect(await grades()).toContain('k8s_rights error')
    })
  })

  it.each<[string, string, unknown, string]>([
    ['an old cluster', '/version', { gitVersion: 'v1.32.9', minor: '32+' }, 'k8s_version error'],
    [
      'a namespace without privileges',
      '/api/v1/namespaces/holdfast-system',
      { metadata: { labels: { 'pod-security.kubernetes.io/enforce': 'baseline' } } },
      'k8s_namespace error',
    ],
    ['a namespace to be made', '/api/v1/namespaces/holdfast-system', undefined, 'k8s_namespace warn'],
    [
      'a policy that only warns',
      '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings',
      { items: [{ spec: { policyName: 'holdfast-mounts', validationActions: ['Audit'] } }] },
      'k8s_admission warn',
    ],
    [
      'an agent that is not ready',
      '/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent',
      {
        spec: { template: { spec: { hostPID: true } } },
        status: { desiredNumberScheduled: 3, numberReady: 2 },
      },
      'k8s_agents error',
    ],
    [
      'a new agent that does not get ready beside those of before',
      '/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent',
      agents({ updatedNumberScheduled: 1 }),
      'k8s_agents warn',
    ],
    [
      'a change that no controller has seen yet',
      '/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent',
      agents({ observedGeneration: 3 }),
      'k8s_agents warn',
    ],
    [
      'agents without hostPID',
      '/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent',
      { spec: { template: { spec: {} } }, status: { desiredNumberScheduled: 3, numberReady: 3 } },
      'k8s_agents error',
    ],
    [
      'no agents',
      '/apis/apps/v1/namespaces/holdfast-system/daemonsets/holdfast-agent',
      undefined,
      'k8s_agents error',
    ],
  ])('says so of %s', async (_what, path, object, expected) => {
    answers.objects[path] = object
    expect(await grades()).toContain(expected)
  })

  it('names the namespaces whose egress policies the agent would pass by, and not its own', async () => {
    const policy = (namespace: string, spec: object) => ({ metadata: { name: 'x', namespace }, spec })
    answers.objects['/apis/networking.k8s.io/v1/networkpolicies'] = {
      items: [
        policy('shop', { policyTypes: ['Ingress', 'Egress'] }),
        policy('bank', { egress: [] }),
        policy('web', { policyTypes: ['Ingress'] }),
        policy('holdfast-system', { policyTypes: ['Egress'] }),
      ],
    }
    const finding = await findingOf('k8s_egress')
    expect(finding?.grade).toBe('warn')
    expect(finding?.why?.[0]).toMatch(/: bank, shop$/)
  })

  it('looks for no agent before an install', async () => {
    expect((await grades({ pre: true })).some((grade) => grade.startsWith('k8s_agents'))).toBe(false)
  })

  it('skips what the asker may not see', async () => {
    for (const path of [
      '/apis/authorization.k8s.io/v1/subjectaccessreviews',
      '/apis/networking.k8s.io/v1/networkpolicies',
      '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings',
    ])
      answers.status[path] = 403
    expect(await grades()).toEqual(
      expect.arrayContaining(['k8s_rights skip', 'k8s_admission skip', 'k8s_egress skip']),
    )
  })

  it('says how to reach the API server when nobody answers', async () => {
    server.closeAllConnections()
    server.close()
    const kept = io()
    expect(await check({ kubernetes: true, server: url }, kept)).toBe(1)
    expect(kept.written.out).toMatch(/the API server cannot be reached: ECONNREFUSED[\s\S]*kubectl proxy/)
  })

  it('sends nothing in plain to another machine', async () => {
    await expect(kubernetesGroup({ server: 'http://10.0.0.1:8001' }, io())).rejects.toMatchObject({
      reason: 'usage',
    })
  })
})
