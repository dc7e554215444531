/** The chart as manifests, rendered by Helm itself, which is compiled once from its pinned module. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { ROOT } from './built-agent.ts'

export const CHART = join(ROOT, 'deploy/helm/holdfast')
export const NAMESPACE = 'holdfast-system'

// biome-ignore lint/suspicious/noExplicitAny: tests read members of what they assert on.
export type Manifest = any

/** Values under which the chart renders: it has no default for the trust domain. */
export const VALUES = { trustDomain: 'cluster.test', authority: { caSecret: 'holdfast-ca' } }

/** Everything on. */
export const ALL = {
  ...VALUES,
  authority: { ...VALUES.authority, jwtKeysSecret: 'holdfast-jwt-keys' },
  secrets: ['oauth'],
  policy: { 'identity.yaml': 'layer: identity\nentries: []\n' },
  customResources: { enabled: true },
  kubelet: { verification: 'pinned' },
  ptrace: true,
  podMonitor: { enabled: true },
  prometheusRule: { enabled: true },
  dashboard: { enabled: true },
  probe: { enabled: true, url: 'https://orders.example.test/', args: ['--target', 'orders', '--quick'] },
  openshift: { enabled: true },
  resourceQuota: { enabled: true },
  seLinuxOptions: { type: 'spc_t' },
  networkPolicy: {
    metricsFrom: [{ namespaceSelector: {} }],
    egress: {
      allow: [{ to: [{ ipBlock: { cidr: '203.0.113.7/32' } }], ports: [{ port: 443, protocol: 'TCP' }] }],
    },
  },
}

/** Why Helm cannot be had here; undefined when it can. */
export function missingForHelm(): string | undefined {
  return built().status === 0 ? undefined : `Helm (${built().stderr.trim().split('\n').at(-1)})`
}

let program: ReturnType<typeof build> | undefined
const build = () => spawnSync(join(ROOT, 'test/support/helm/build'), { encoding: 'utf8' })

function built() {
  program ??= build()
  return program
}

/** Runs Helm with the chart and `values`; the exit code and all that it said. */
export function helm(command: 'lint' | 'template', values: object, ...more: readonly string[]) {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-helm-'))
  const file = join(dir, 'values.yaml')
  try {
    // JSON is YAML.
    writeFileSync(file, JSON.stringify(values))
    const name = command === 'template' ? ['holdfast'] : []
    const args = [command, ...name, CHART, '--namespace', NAMESPACE, '--values', file, ...more]
    const home = { HELM_CACHE_HOME: dir, HELM_CONFIG_HOME: dir, HELM_DATA_HOME: dir }
    const { status, stdout, stderr } = spawnSync(built().stdout.trim(), args, {
      encoding: 'utf8',
      env: { ...process.env, ...home },
      maxBuffer: 64 * 1024 * 1024,
    })
    return { status, stdout, stderr }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** The objects that an install would make, in the order of the templates; throws what Helm refuses. */
export function render(values: object = VALUES, ...more: readonly string[]): readonly Manifest[] {
  return parseManifests(renderText(values, ...more))
}

export function renderText(values: object = VALUES, ...more: readonly string[]): string {
  const { status, stdout, stderr } = helm('template', values, '--kube-version', '1.37.2', ...more)
  if (status !== 0) throw new Error(stderr)
  return stdout
}

export function parseManifests(text: string): readonly Manifest[] {
  return parseAllDocuments(text)
    .map((document) => document.toJS())
    .filter((object) => object !== null)
}

/** The one object of this kind, by name where there are several. */
export function objectOf(manifests: readonly Manifest[], kind: string, name?: string): Manifest {
  const found = manifests.filter((each) => each.kind === kind && (!name || each.metadata.name === name))
  if (found.length !== 1) throw new Error(`${found.length} objects ${kind} ${name ?? ''}`)
  return found[0]
}
