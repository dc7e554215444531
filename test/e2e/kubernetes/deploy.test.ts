/** What deploy/ installs, at a real API server: it takes every object, and its admission policies keep pods off the sockets. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ROOT } from '../../support/built-agent.ts'
import type { Api, Json } from '../../support/cluster/api.ts'
import { makeNamespace } from '../../support/cluster/cluster.ts'
import { openControlPlane } from '../../support/cluster/control-plane.ts'
import { type Node, openNode } from '../../support/cluster/node.ts'
import { missingForCluster } from '../../support/cluster/parts.ts'
import { makePki } from '../../support/cluster/pki.ts'
import {
  ALL,
  missingForHelm,
  NAMESPACE,
  objectOf,
  parseManifests,
  render,
  VALUES,
} from '../../support/manifests.ts'
import { until } from '../../support/until.ts'

const missing = missingForCluster() ?? missingForHelm()
/** Kinds of operators and of OpenShift, which this API server does not know. */
const FOREIGN = /monitoring\.coreos\.com|security\.openshift\.io/

const CONTAINER = { name: 'app', image: 'app:1' }
const host = (path: string) => ({ name: 'v', hostPath: { path } })
const mount = (more: object = {}) => ({ name: 'v', mountPath: '/v', ...more })
const READ_ONLY = { readOnly: true }

/** A pod with one hostPath, mounted as `more` says. */
function podWith(path: string, more: object = READ_ONLY, spec: object = {}): Json {
  const containers = [{ ...CONTAINER, volumeMounts: [mount(more)] }]
  return {
    metadata: { name: 'pod', namespace: 'shop' },
    spec: { volumes: [host(path)], containers, ...spec },
  }
}

if (missing) {
  console.warn(`SKIPPED: Kubernetes needs ${missing}`)
  it.skip('Kubernetes runs on real parts', () => {})
} else {
  let node: Node
  let api: Api

  beforeAll(async () => {
    node = await openNode()
    const pki = makePki(join(node.dir, 'pki'))
    api = (await openControlPlane(node, pki)).api
    await makeNamespace({ api, pki }, NAMESPACE, ['holdfast-agent'])
    for (const name of ['shop', 'kube-system']) await makeNamespace({ api, pki }, name, ['holdfast-agent'])
    await makeNamespace({ api, pki }, 'restricted', [], {
      'pod-security.kubernetes.io/enforce': 'restricted',
    })
    for (const object of render()) await applied(object)
    let last: Json
    await until(
      'the admission policies',
      async () => {
        last = await dryRun(podWith('/run/holdfast'))
        return last.status === 403
      },
      30_000,
    ).catch((error) => {
      throw new Error(`${error.message}: ${JSON.stringify(last)}`)
    })
  }, 120_000)
  afterAll(() => node?.[Symbol.asyncDispose](), 60_000)

  const applied = async (object: Json) => {
    const { status, body } = await api.apply(object)
    if (status >= 300) throw new Error(`${object.kind} ${object.metadata.name}: ${status} ${body.message}`)
  }
  const dryRun = (pod: Json) =>
    api.call('POST', `/api/v1/namespaces/${pod.metadata.namespace}/pods?dryRun=All`, pod)
  const verdict = async (pod: Json) => {
    const { status, body } = await dryRun(pod)
    return [status, String(body.message ?? '')]
  }
  const REFUSED = [403, expect.stringContaining("ValidatingAdmissionPolicy 'holdfast-mounts'")]

  describe('the API server', () => {
    it.each([
      ['as it comes', VALUES],
      ['with everything on', ALL],
    ])('takes every object of the chart %s, strictly', async (_what, values) => {
      const known = render(values).filter(({ apiVersion }) => !FOREIGN.test(apiVersion))
      for (const object of known) await applied(object)
      expect(known.length).toBeGreaterThan(8)
    })
  })

  describe('a pod', () => {
    it.each([
      ['the public directory, read-only', podWith('/run/holdfast/public')],
      ['the same by /var/run', podWith('/var/run/holdfast/public/')],
      ['another directory of /run, writable', podWith('/run/other', {})],
      ['a neighbour with the same beginning', podWith('/run/holdfast-other', {})],
      ['a neighbour of the public directory', podWith('/run/holdfast/publicity', {})],
      ['the /proc of the node, as monitoring does', podWith('/proc')],
    ])('may mount %s', async (_what, pod) => {
      expect(await verdict(pod)).toEqual([201, ''])
    })

    it.each([
      ['the public directory, writable', podWith('/run/holdfast/public', {})],
      ['the same with readOnly false', podWith('/run/holdfast/public', { readOnly: false })],
      ['the same by a sloppy path', podWith('//run/./holdfast///public/', {})],
      ['the same by /var/run', podWith('/var/run/holdfast/public', {})],
      ['a socket in it, writable', podWith('/run/holdfast/public/workload.sock', {})],
      ['the private directory, read-only', podWith('/run/holdfast/private')],
      ['a file in it', podWith('/run/holdfast/private/admin.sock')],
      ['the same by a sloppy path', podWith('/run/holdfast/./private//')],
      ['the directory of both', podWith('/run/holdfast')],
      ['/run', podWith('/run')],
      ['/var/run', podWith('/var/run')],
      ['/', podWith('/')],
      ['/ by dots', podWith('/.')],
      ['the root of a process', podWith('/proc/1/root/run/holdfast/private')],
      ['the root of a thread', podWith('/proc/1/task/1/root')],
      ['the working directory of a process', podWith('/proc/self/cwd')],
    ])('may not mount %s', async (_what, pod) => {
      expect(await verdict(pod)).toEqual(REFUSED)
    })

    it('may not hold such a volume even where nothing mounts it', async () => {
      const pod = podWith('/run/holdfast/private', READ_ONLY, { containers: [CONTAINER] })
      expect(await verdict(pod)).toEqual(REFUSED)
    })

    it.each(['initContainers', 'containers'])('may not mount it writable in one of %s', async (kind) => {
      const other = { ...CONTAINER, name: 'other', volumeMounts: [mount()] }
      const containers = [{ ...CONTAINER, volumeMounts: [mount(READ_ONLY)] }]
      const spec =
        kind === 'containers' ? { containers: [...containers, other] } : { containers, [kind]: [other] }
      expect(await verdict(podWith('/run/holdfast/public', READ_ONLY, spec))).toEqual(REFUSED)
    })

    it('may not get it writable by kubectl debug', async () => {
      await api.ask('POST', '/api/v1/namespaces/shop/pods', podWith('/run/holdfast/public'))
      const debug = (readOnly: boolean) => ({
        spec: { ephemeralContainers: [{ ...CONTAINER, name: 'debug', volumeMounts: [mount({ readOnly })] }] },
      })
      const place = '/api/v1/namespaces/shop/pods/pod/ephemeralcontainers'
      const put = (body: object) => api.call('PATCH', place, body, 'application/strategic-merge-patch+json')
      const { status, body } = await put(debug(false))
      expect([status, body.message]).toEqual(REFUSED)
      expect((await put(debug(true))).status).toBe(200)
    })

    it('is the agent only by namespace and account', async () => {
      const { spec } = objectOf(render(), 'DaemonSet').spec.template
      const agent = (namespace: string, serviceAccountName: string) => ({
        metadata: { name: 'agent', namespace },
        spec: { ...spec, serviceAccountName },
      })
      expect(await verdict(agent(NAMESPACE, 'holdfast-agent'))).toEqual([201, ''])
      expect(await verdict(agent(NAMESPACE, 'default'))).toEqual(REFUSED)
      expect(await verdict(agent('shop', 'holdfast-agent'))).toEqual(REFUSED)
    })

    it('of a namespace that runs the node is let alone', async () => {
      const { spec } = podWith('/run', {})
      expect(await verdict({ metadata: { name: 'network', namespace: 'kube-system' }, spec })).toEqual([
        201,
        '',
      ])
    })
  })

  it.each(['app.yaml', 'app-csi.yaml', 'sidecar.yaml'])('takes the example %s, strictly', async (name) => {
    const text = readFileSync(join(ROOT, 'deploy/examples/kubernetes', name), 'utf8')
    for (const object of parseManifests(text)) await applied(object)
  })

  it('lets pods stay restricted with the CSI driver, and not with a hostPath', async () => {
    const [csi] = parseManifests(readFileSync(join(ROOT, 'deploy/examples/kubernetes/app-csi.yaml'), 'utf8'))
    const pods = parseManifests(readFileSync(join(ROOT, 'deploy/examples/kubernetes/app.yaml'), 'utf8'))
    const inRestricted = (pod: Json) => ({
      metadata: { name: pod.metadata.name, namespace: 'restricted' },
      spec: { ...pod.spec, serviceAccountName: 'default' },
    })
    expect(await verdict(inRestricted(csi))).toEqual([201, ''])
    const refused = [403, expect.stringContaining('violates PodSecurity "restricted')]
    expect(await verdict(inRestricted(objectOf(pods, 'Pod')))).toEqual(refused)
  })

  describe('a persistent volume', () => {
    const volume = (source: object) => ({
      metadata: { name: 'volume' },
      spec: {
        capacity: { storage: '1Gi' },
        accessModes: ['ReadWriteOnce'],
        storageClassName: 'manual',
        ...source,
      },
    })
    const affinity = {
      required: { nodeSelectorTerms: [{ matchExpressions: [{ key: 'a', operator: 'Exists' }] }] },
    }
    const make = async (source: object) => {
      const { status, body } = await api.call('POST', '/api/v1/persistentvolumes?dryRun=All', volume(source))
      return [status, String(body.message ?? '')]
    }
    const refused = [403, expect.stringContaining("ValidatingAdmissionPolicy 'holdfast-volumes'")]

    it.each([
      ['the public directory', { hostPath: { path: '/run/holdfast/public' } }],
      ['the directory above', { hostPath: { path: '/var//run' } }],
      [
        'the private directory as a local disk',
        { local: { path: '/run/holdfast/private' }, nodeAffinity: affinity },
      ],
    ])('may not lie in %s', async (_what, source) => expect(await make(source)).toEqual(refused))

    it.each([
      ['elsewhere on the node', { hostPath: { path: '/srv/data' } }],
      ['nowhere on the node', { csi: { driver: 'disk.example.test', volumeHandle: 'a' } }],
    ])('may lie %s', async (_what, source) => expect(await make(source)).toEqual([201, '']))
  })
}
