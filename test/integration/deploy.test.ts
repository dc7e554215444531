/** The chart of deploy/helm, rendered by Helm: what an install makes, and what it refuses. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { checkFiles } from '../../src/cli/policy.ts'
import { policyContext } from '../../src/cli/policy-context.ts'
import { parseConfig } from '../../src/config.ts'
import { parsePolicy } from '../../src/policy/load.ts'
import { ROOT } from '../support/built-agent.ts'
import { keptIo } from '../support/io.ts'
import {
  ALL,
  CHART,
  helm,
  type Manifest,
  missingForHelm,
  objectOf,
  parseManifests,
  render,
  VALUES,
} from '../support/manifests.ts'

const missing = missingForHelm()

const EXAMPLES = join(ROOT, 'deploy/examples/kubernetes')
const PLAIN = join(ROOT, 'deploy/kubernetes')

/** What the agent makes of the policy that the chart puts into its ConfigMap. */
async function policyOf(values: { readonly trustDomain: string }) {
  const { data } = objectOf(render(values), 'ConfigMap', 'holdfast-policy')
  const texts = Object.entries<string>(data).map(([file, text]) => ({ file, text }))
  const result = await parseConfig(
    '/c.yaml',
    `trust_domain: ${values.trustDomain}\nkubernetes: {attestor: kubelet}\n`,
  )
  if (!('config' in result)) throw new Error('the configuration')
  return parsePolicy(
    texts,
    policyContext(result.config, () => 0),
  )
}

const agentOf = (manifests: readonly Manifest[]) => objectOf(manifests, 'DaemonSet').spec.template.spec

if (missing) {
  console.warn(`SKIPPED: the chart needs ${missing}`)
  it.skip('the chart renders', () => {})
} else {
  describe('the chart', () => {
    it.each([
      ['as it comes', VALUES],
      ['with everything on', ALL],
    ])('passes the lint of Helm %s', (_what, values) => {
      const { status, stdout } = helm('lint', values, '--strict', '--kube-version', '1.37.2')
      expect([status, stdout]).toEqual([0, expect.stringContaining('1 chart(s) linted, 0 chart(s) failed')])
    })

    it.each([
      ['no trust domain', { trustDomain: '' }, /trustDomain has no default/],
      ['a value that nobody knows', { ...VALUES, hostPid: false }, /hostPid/],
      ['a trust domain in capitals', { trustDomain: 'Example.org' }, /trustDomain/],
      ['a directory with dots', { ...VALUES, hostPath: '/run/../etc' }, /hostPath/],
      ['a digest of another kind', { ...VALUES, image: { digest: 'md5:00' } }, /digest/],
      ['no URL to probe', { ...VALUES, probe: { enabled: true, args: ['--target=a'] } }, /probe\.url/],
      [
        'no token to probe with',
        { ...VALUES, probe: { enabled: true, url: 'https://a.test' } },
        /--target NAME/,
      ],
    ])('refuses %s', (_what, values, why) => {
      const { status, stderr } = helm('template', values, '--kube-version', '1.37.2')
      expect([status, stderr]).toEqual([1, expect.stringMatching(why)])
    })

    it('refuses a Kubernetes whose kubelet knows no nodes/pods', () => {
      expect(helm('template', VALUES, '--kube-version', '1.32.0').stderr).toMatch(/requires kubeVersion/)
    })
  })

  describe('the agent that it runs', () => {
    const spec = agentOf(render())
    const [agent] = spec.containers

    it('has no capability, no way to one, and nothing to write on but its directories', () => {
      expect(agent.securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      })
      expect(spec.securityContext.seccompProfile).toEqual({ type: 'RuntimeDefault' })
      const writable = agent.volumeMounts.filter((mount: Manifest) => !mount.readOnly)
      expect(writable.map((mount: Manifest) => mount.mountPath)).toEqual([
        '/run/holdfast/public',
        '/run/holdfast/private',
      ])
    })

    it('sees the processes of the node, and shares nothing else with it', () => {
      expect([spec.hostPID, spec.hostNetwork, spec.hostIPC]).toEqual([true, false, undefined])
    })

    it('shows a token of its own only, for an hour, and never that of the account', () => {
      expect(spec.automountServiceAccountToken).toBe(false)
      const { sources } = spec.volumes.find((volume: Manifest) => volume.name === 'account').projected
      expect(sources[0].serviceAccountToken).toEqual({ path: 'token', expirationSeconds: 3600 })
    })

    it('is never restarted for what is missing elsewhere', () => {
      expect([agent.startupProbe.httpGet.path, agent.livenessProbe.httpGet.path]).toEqual([
        '/livez',
        '/livez',
      ])
      expect(agent.readinessProbe.httpGet.path).toBe('/readyz')
    })

    it('is replaced by one that is ready already', () => {
      const { updateStrategy } = objectOf(render(), 'DaemonSet').spec
      expect(updateStrategy).toEqual({
        type: 'RollingUpdate',
        rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
      })
      expect(agent.args).toContain('--takeover')
    })

    it('keeps its keys in locked memory', () => {
      expect(agent.command).toEqual([
        '/bin/node',
        '--secure-heap=1048576',
        '--secure-heap-min=2',
        '--max-semi-space-size=4',
        '/app/dist/holdfast.js',
      ])
    })

    it('is told what the settings ask of the Downward API', () => {
      const fields = agent.env.map((each: Manifest) => [each.name, each.valueFrom.fieldRef.fieldPath])
      expect(Object.fromEntries(fields)).toEqual({
        NODE_IP: 'status.hostIP',
        POD_IP: 'status.podIP',
        POD_NAMESPACE: 'metadata.namespace',
        POD_UID: 'metadata.uid',
      })
    })

    it('runs on every node, first of all', () => {
      expect([spec.priorityClassName, spec.tolerations]).toEqual([
        'system-node-critical',
        [{ operator: 'Exists' }],
      ])
    })

    it('restarts for other settings and not for another policy', () => {
      const annotations = (values: object) =>
        objectOf(render(values), 'DaemonSet').spec.template.metadata.annotations
      const policy = { 'identity.yaml': 'layer: identity\nentries: []\n' }
      expect(annotations({ ...VALUES, policy })).toEqual(annotations(VALUES))
      expect(annotations({ ...VALUES, config: { log: { level: 'debug' } } })).not.toEqual(annotations(VALUES))
    })

    it('gets SYS_PTRACE only where the values say so', () => {
      const [all] = agentOf(render(ALL)).containers
      expect(all.securityContext.capabilities).toEqual({ drop: ['ALL'], add: ['SYS_PTRACE'] })
    })
  })

  describe('what it may do', () => {
    it('is to read the list of pods of a kubelet', () => {
      expect(objectOf(render(), 'ClusterRole').rules).toEqual([
        { apiGroups: [''], resources: ['nodes/pods'], verbs: ['get'] },
      ])
    })

    it('is never more than reading, and saying in a status what was read', () => {
      const { rules } = objectOf(render(ALL), 'ClusterRole')
      const isStatus = ({ resources }: Manifest) =>
        resources.every((name: string) => name.endsWith('/status'))
      const verbsOf = (given: readonly Manifest[]) => [...new Set(given.flatMap(({ verbs }) => verbs))].sort()
      expect(verbsOf(rules.filter(isStatus))).toEqual(['patch'])
      expect(verbsOf(rules.filter((rule: Manifest) => !isStatus(rule)))).toEqual(['get', 'list', 'watch'])
    })
  })

  it('starts on nodes without a Pods API, and asks it where there is one', () => {
    const { containers, volumes } = agentOf(render())
    const named = ({ name }: Manifest) => name === 'pods-api'
    const path = '/var/lib/kubelet/pods-api'
    expect(volumes.find(named).hostPath).toEqual({ path, type: 'DirectoryOrCreate' })
    expect(containers[0].volumeMounts.find(named)).toEqual({
      name: 'pods-api',
      mountPath: path,
      readOnly: true,
    })
    const asking = agentOf(render({ ...VALUES, kubelet: { attestor: 'kubelet' } }))
    expect(asking.volumes.filter(named)).toEqual([])
  })

  describe('an agent that knows pods by the Pods API', () => {
    const values = { ...VALUES, kubelet: { attestor: 'pods_api', verification: 'pinned' } }

    it('has no token, no right and no way to the kubelet, and its socket read-only', () => {
      const manifests = render(values)
      expect(manifests.filter(({ kind }) => kind.startsWith('ClusterRole'))).toEqual([])
      const { containers, volumes } = agentOf(manifests)
      const names = volumes.map((each: Manifest) => each.name)
      expect(names).toEqual(['public', 'private', 'config', 'policy', 'ca', 'pods-api'])
      expect(volumes.at(-1).hostPath).toEqual({ path: '/var/lib/kubelet/pods-api', type: 'Directory' })
      expect(containers[0].volumeMounts.at(-1)).toEqual({
        name: 'pods-api',
        mountPath: '/var/lib/kubelet/pods-api',
        readOnly: true,
      })
      const { spec } = objectOf(manifests, 'NetworkPolicy')
      const ports = spec.egress.flatMap((rule: Manifest) => rule.ports.map((each: Manifest) => each.port))
      expect(ports).toEqual([53, 53])
    })

    it('keeps token and rights for custom resources alone', () => {
      const manifests = render({ ...values, customResources: { enabled: true } })
      const { rules } = objectOf(manifests, 'ClusterRole')
      expect(rules.flatMap(({ resources }: Manifest) => resources)).not.toContain('nodes/pods')
      const names = agentOf(manifests).volumes.map((each: Manifest) => each.name)
      expect(names).toContain('account')
    })
  })

  describe('the configuration that it writes', () => {
    it.each([
      ['as it comes', VALUES],
      ['with everything on', ALL],
      ['with the Pods API', { ...VALUES, kubelet: { attestor: 'pods_api' } }],
      ['with settings over it', { ...VALUES, config: { wit: 'off', svid: { x509_ttl: '10m' } } }],
    ])('is one that the agent takes %s', async (_what, values) => {
      const text = objectOf(render(values), 'ConfigMap', 'holdfast-config').data['holdfast.yaml']
      const listening = text.replace('pod:9465', '127.0.0.1:9465')
      expect(await parseConfig('/etc/holdfast/holdfast.yaml', listening)).toHaveProperty('config')
    })

    it('names the files of the Secrets that the pod mounts', async () => {
      const values = { ...VALUES, authority: { caSecret: 'a', jwtKeysSecret: 'b' } }
      const text = objectOf(render(values), 'ConfigMap', 'holdfast-config').data['holdfast.yaml']
      const { authority } = parse(text)
      const { containers, volumes } = agentOf(render(values))
      for (const [file, name, secretName] of [
        [authority.ca.key_file, 'ca', 'a'],
        [authority.jwt_keys_file, 'jwt-keys', 'b'],
      ]) {
        const mount = containers[0].volumeMounts.find((each: Manifest) => each.name === name)
        expect([dirname(file), mount.readOnly]).toEqual([mount.mountPath, true])
        const volume = volumes.find((each: Manifest) => each.name === name)
        expect(volume.secret).toEqual({ secretName, defaultMode: 0o400 })
      }
      const names = agentOf(render()).volumes.map((each: Manifest) => each.name)
      expect(names).not.toContain('jwt-keys')
    })

    it('is with the policy of the examples', async () => {
      const values = parse(readFileSync(join(EXAMPLES, 'policy.yaml'), 'utf8'))
      const result = await policyOf({ ...VALUES, ...values, trustDomain: 'example.org' })
      expect(result).toHaveProperty('book')
    })

    it('is with the probe of the examples beside it, and the chart takes all of it', async () => {
      const read = (name: string) => parse(readFileSync(join(EXAMPLES, name), 'utf8'))
      const [values, probe] = [read('policy.yaml'), read('probe.yaml')]
      const policy = { ...values.policy, ...probe.policy }
      const all = { ...VALUES, ...values, ...probe, policy, trustDomain: 'example.org' }
      const result = await policyOf(all)
      expect('book' in result && result.book.entries.map(({ name }) => name)).toEqual(['probe', 'cart'])
      const { spec } = objectOf(render(all), 'CronJob').spec.jobTemplate.spec.template
      expect(spec.containers[0].args).toEqual(['probe', probe.probe.url, '--target', 'orders-probe'])
    })

    it('is joined with the objects of the examples', async () => {
      const io = keptIo()
      const file = join(EXAMPLES, 'custom-resources.yaml')
      expect(await checkFiles([file], { trustDomain: 'example.org' }, io)).toBe(0)
      expect(io.written.out).toMatch(/^valid: 1 file, 4 objects/)
      expect(io.written.out).not.toContain('silent')
    })

    it('is with a policy that gives nobody anything', async () => {
      const result = await policyOf(VALUES)
      expect('book' in result && result.book.entries).toEqual([])
    })
  })

  describe('the network that it may use', () => {
    it('is closed but for the kubelet and names', () => {
      const { spec } = objectOf(render(), 'NetworkPolicy')
      const ports = spec.egress.flatMap((rule: Manifest) => rule.ports.map((each: Manifest) => each.port))
      expect([spec.ingress, ports]).toEqual([[], [10250, 53, 53]])
    })

    it('is what egress.allow opens', () => {
      const { spec } = objectOf(render(ALL), 'NetworkPolicy')
      expect(spec.egress.at(-1)).toEqual(ALL.networkPolicy.egress.allow[0])
    })
  })

  describe('the probe', () => {
    const probeOf = (values: object) => {
      const probe = { ...ALL.probe, ...values }
      const manifests = render({ ...ALL, probe, imagePullSecrets: [{ name: 'registry' }] })
      return objectOf(manifests, 'CronJob').spec.jobTemplate.spec
    }

    it('runs where agents run, with their image', () => {
      const { containers, imagePullSecrets, nodeSelector } = probeOf({}).template.spec
      const manifests = render(ALL)
      expect(containers[0].image).toBe(agentOf(manifests).containers[0].image)
      expect([imagePullSecrets, nodeSelector]).toEqual([
        [{ name: 'registry' }],
        { 'kubernetes.io/os': 'linux' },
      ])
    })

    it('has no token and no power, and reads what the values mount', () => {
      const roots = { name: 'roots', configMap: { name: 'roots' } }
      const mount = { name: 'roots', mountPath: '/etc/probe', readOnly: true }
      const { spec } = probeOf({ extraVolumes: [roots], extraVolumeMounts: [mount] }).template
      const [{ securityContext, volumeMounts }] = spec.containers
      expect([spec.automountServiceAccountToken, spec.hostPID, spec.securityContext.runAsNonRoot]).toEqual([
        false,
        undefined,
        true,
      ])
      expect(securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      })
      const sockets = { name: 'holdfast', mountPath: '/run/holdfast/public', readOnly: true }
      expect([volumeMounts, spec.volumes.at(-1)]).toEqual([[sockets, mount], roots])
    })

    it('has the time that its default waits may take: a proof, a nonce, and the life of a token', () => {
      const seconds = 60 + 300 + 300
      expect(probeOf({}).activeDeadlineSeconds).toBeGreaterThan(2 * seconds)
    })

    it('is admitted by OpenShift as itself alone', () => {
      const probe = objectOf(render(ALL), 'SecurityContextConstraints', 'holdfast-probe')
      expect([probe.allowHostPID, probe.runAsUser.type, probe.users]).toEqual([
        false,
        'MustRunAsNonRoot',
        ['system:serviceaccount:holdfast-system:holdfast-probe'],
      ])
      const without = render({ ...ALL, probe: { enabled: false } })
      expect(objectOf(without, 'SecurityContextConstraints').metadata.name).toBe('holdfast-agent')
    })
  })

  describe('the plain manifests', () => {
    const read = (name: string) => readFileSync(join(PLAIN, name), 'utf8')
    const rendered = render(parse(read('values.yaml')))

    it('are those of the chart: deploy/kubernetes/render writes them', () => {
      const unmanaged = (object: Manifest) =>
        JSON.parse(JSON.stringify(object).replaceAll(',"app.kubernetes.io/managed-by":"Helm"', ''))
      const others = rendered.filter(({ kind }) => kind !== 'ConfigMap').map(unmanaged)
      expect(parseManifests(read('holdfast.yaml'))).toEqual(others)
    })

    it.each([
      ['holdfast-config', 'config/holdfast.yaml'],
      ['holdfast-policy', 'policy/identity.yaml'],
    ])('make %s of %s', (name, file) => {
      const { data } = objectOf(rendered, 'ConfigMap', name)
      expect(Object.values(data)).toEqual([read(file)])
      const { configMapGenerator } = parse(read('kustomization.yaml'))
      expect(configMapGenerator.find((each: Manifest) => each.name === name).files).toEqual([file])
    })
  })

  it('the values file names every value that the schema knows', () => {
    const schema = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8'))
    const values = readFileSync(join(CHART, 'values.yaml'), 'utf8')
    const named = [...values.matchAll(/^([a-zA-Z]+):/gm)].map((match) => match[1])
    expect([...named, 'global'].sort()).toEqual(Object.keys(schema.properties).sort())
  })
}
