/** The templates of deploy/istio as Istio's own injector merges them into pods, where `istioctl` is installed. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, parseAllDocuments, stringify } from 'yaml'
import { ROOT } from '../../support/built-agent.ts'

const hasIstioctl = spawnSync('istioctl', ['version', '--remote=false']).status === 0
if (hasIstioctl) describe('the templates of deploy/istio', suite)
else {
  console.warn('SKIPPED: istioctl is not installed')
  it.skip('the templates of deploy/istio are merged into pods', () => {})
}

// biome-ignore lint/suspicious/noExplicitAny: objects are data, whose members tests know.
type Any = any

const MOUNT = {
  name: 'workload-socket',
  mountPath: '/var/run/secrets/workload-spiffe-uds',
  readOnly: true,
}

function suite(): void {
  let dir: string
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'hf-istioctl-'))
    const { meshConfig, ...values } = parse(
      readFileSync(join(ROOT, 'deploy/istio/istio-values.yaml'), 'utf8'),
    )
    const spec = { profile: 'minimal', meshConfig, values }
    const operator = { apiVersion: 'install.istio.io/v1alpha1', kind: 'IstioOperator', spec }
    const made = istioctl(
      {},
      'manifest',
      'generate',
      '--filename',
      write('operator.yaml', stringify(operator)),
    )
    const objects = parseAllDocuments(made).map((document): Any => document.toJS())
    for (const name of ['istio', 'istio-sidecar-injector']) {
      const { data } = objects.find((one) => one?.kind === 'ConfigMap' && one.metadata.name === name)
      for (const [key, text] of Object.entries(data)) write(key, String(text))
    }
  }, 60_000)
  afterAll(() => rmSync(dir, { recursive: true, force: true }))

  const write = (name: string, text: string): string => {
    const file = join(dir, name)
    writeFileSync(file, text)
    return file
  }
  const istioctl = (env: object, ...args: readonly string[]): string => {
    // No cluster, and no home with the address of one.
    const own = { PATH: process.env['PATH'], HOME: dir, KUBECONFIG: join(dir, 'none'), ...env }
    const ran = spawnSync('istioctl', args, {
      env: own,
      encoding: 'utf8',
      timeout: 30_000,
      maxBuffer: 1 << 24,
    })
    if (ran.status !== 0) throw new Error(`istioctl ${args[0]}: ${ran.error ?? ran.stderr}`)
    return ran.stdout
  }
  const inject = (native: boolean, annotations: Record<string, string>, container: object): Any => {
    const metadata = { name: 'cart', namespace: 'shop', annotations }
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata, spec: { containers: [container] } }
    const files = [
      ['injectConfigFile', 'config'],
      ['valuesFile', 'values'],
      ['meshConfigFile', 'mesh'],
    ].flatMap(([flag, name]) => [`--${flag}`, join(dir, name ?? '')])
    const more = ['--revision', 'default', '--filename', write('pod.yaml', stringify(pod))]
    const made = istioctl({ ENABLE_NATIVE_SIDECARS: String(native) }, 'kube-inject', ...files, ...more)
    return parseAllDocuments(made)[0]?.toJS().spec
  }

  const sidecar = { 'inject.istio.io/templates': 'sidecar,holdfast' }
  const gateway = { 'inject.istio.io/templates': 'gateway,holdfast-gateway' }
  const app = { name: 'app', image: 'app:1' }
  it.each([
    ['a native sidecar', true, sidecar, app, 'initContainers'],
    ['a sidecar of older clusters', false, sidecar, app, 'containers'],
    [
      'a pod that wants none',
      true,
      { ...sidecar, 'sidecar.istio.io/nativeSidecar': 'false' },
      app,
      'containers',
    ],
    [
      'a pod that wants one',
      false,
      { ...sidecar, 'sidecar.istio.io/nativeSidecar': 'true' },
      app,
      'initContainers',
    ],
    ['a gateway', true, gateway, { name: 'istio-proxy', image: 'auto' }, 'containers'],
  ] as const)('give %s the directory, once and read-only', (_what, native, annotations, container, list) => {
    const spec = inject(native, annotations, container)
    const all: readonly Any[] = [...(spec.initContainers ?? []), ...spec.containers]
    // One without an image is one that the API server refuses.
    expect(all.filter(({ image }) => !image)).toEqual([])
    const proxies = all.filter(({ name }) => name === 'istio-proxy')
    expect(proxies).toHaveLength(1)
    expect(spec[list]).toContain(proxies[0])
    const mounts = all.flatMap(({ volumeMounts = [] }) => volumeMounts)
    expect(mounts.filter(({ name }) => name === 'workload-socket')).toEqual([MOUNT])
    expect(mounts.filter(({ mountPath }) => mountPath.endsWith('/workload-spiffe-uds'))).toHaveLength(1)
    expect(proxies[0].env).toContainEqual({ name: 'WORKLOAD_IDENTITY_SOCKET_FILE', value: 'workload.sock' })
    const volumes = spec.volumes.filter(({ name }: Any) => name === 'workload-socket')
    const hostPath = { path: '/run/holdfast/public', type: 'Directory' }
    expect(volumes).toEqual([{ name: 'workload-socket', hostPath }])
  })
}
