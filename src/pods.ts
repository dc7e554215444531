/** The attestor of pods, put together from the configuration and from what the agent's own pod is told of itself. */
import { readFileSync, statSync } from 'node:fs'
import { Containers } from './attest/containers.ts'
import { EitherLists } from './attest/either-lists.ts'
import type { PodsOptions } from './attest/identify.ts'
import { kubeletLists } from './attest/kubelet.ts'
import { watchKubeletRights } from './attest/kubelet-rights.ts'
import { ListedPods } from './attest/listed-pods.ts'
import type { OutageTold } from './attest/outage.ts'
import type { PodLists } from './attest/pod-source.ts'
import type { Clock, Seconds } from './base/clock.ts'
import { Fault } from './base/fault.ts'
import { ClusterHttps, type Verification } from './cluster/https.ts'
import type { PodEnvironment } from './config.ts'
import { openPodsApi } from './pods-api.ts'
import type { Config } from './settings.ts'
import { ACCOUNT_DIRECTORY } from './settings-kubernetes.ts'
import type { Audit } from './telemetry/audit.ts'
import type { Health } from './telemetry/health.ts'
import type { Log } from './telemetry/log.ts'

export interface PodsSetUp {
  readonly config: Config
  readonly pod: PodEnvironment | undefined
  readonly clock: Clock
  readonly health: Health
  readonly audit: Pick<Audit, 'append'>
  readonly log: Pick<Log, 'info'>
  /** Ends with the agent. */
  readonly signal: AbortSignal
}

const MILLIS = 1000
const MIB = 1024 * 1024
const READ_ONLY_PORT = 10_255
/** The inode of the first pid namespace (PROC_PID_INIT_INO in the kernel). */
const HOST_PID_NAMESPACE = 0xefff_fffc

/** The attestor; undefined where it is off. Throws config_invalid, peer_foreign. */
export function openPods(setUp: PodsSetUp): PodsOptions | undefined {
  const { pod, clock, health, audit } = setUp
  const { kubernetes } = setUp.config
  if (kubernetes.attestor === 'off') return undefined
  checkPidNamespace(pod)
  const source = new ListedPods({
    lists: LISTS[kubernetes.attestor](setUp),
    clock,
    health,
    every: kubernetes.poll * MILLIS,
    ownPod: pod?.podUid,
  })
  const containers = new Containers({
    kubelet: source,
    clock,
    rules: {
      labels: kubernetes.podLabels,
      terminating: kubernetes.terminatingPods,
      ephemeral: kubernetes.ephemeralContainers,
      static: kubernetes.staticPods,
      unlisted: kubernetes.unlistedContainers,
    },
    maxAge: kubernetes.maxFactsAge * MILLIS,
    outageAge: kubernetes.outageAge * MILLIS,
    onOutage: (told) => recordOutage(told, kubernetes.outageAge, audit),
  })
  return { containers, cgroupRoot: kubernetes.cgroupRoot, podUid: pod?.podUid }
}

const LISTS = { auto: either, kubelet, pods_api: podsApi }

function either(setUp: PodsSetUp): PodLists {
  const { config, pod, log, signal } = setUp
  // Found now, not when the kubelet has to be asked.
  urlOf(config, pod)
  return new EitherLists({
    podsApi: podsApi(setUp),
    kubelet: () => kubelet(setUp),
    signal,
    onChosen: (why) =>
      log.info(
        why === undefined
          ? 'pods are known by the Pods API of the kubelet'
          : `pods are known by the kubelet over HTTPS: ${why}`,
      ),
  })
}

function kubelet({ config, pod, clock, health, signal }: PodsSetUp): PodLists {
  const { timeout, maxMib, tokenFile, legacyAccess } = config.kubernetes.kubelet
  const verification = verificationOf(config)
  reportWeak(config, health)
  const https = new ClusterHttps({
    name: 'the kubelet',
    url: urlOf(config, pod),
    verification,
    ...(verification.kind === 'plain' ? {} : { tokenFile: tokenFile ?? `${ACCOUNT_DIRECTORY}/token` }),
    timeout: timeout * MILLIS,
    clock,
  })
  // Whoever has set another access knows that it allows more, and is warned of it above.
  if (legacyAccess === 'off') watchKubeletRights({ https, clock, health, signal })
  return kubeletLists({ https, maxBytes: maxMib * MIB })
}

function podsApi({ config, clock }: PodsSetUp): PodLists {
  return openPodsApi(config.kubernetes.podsApi, clock)
}

/** In a pid namespace of its own the agent sees every other pod as pid 0. A node may itself be a container (kind). */
function checkPidNamespace(pod: PodEnvironment | undefined): void {
  if (!pod || statSync('/proc/self/ns/pid').ino === HOST_PID_NAMESPACE) return
  // With shareProcessNamespace the pause container is the first process.
  if (process.pid !== 1 && readFileSync('/proc/1/comm', 'utf8') !== 'pause\n') return
  throw new Fault('peer_foreign', 'the agent has a pid namespace of its own and cannot see who calls it', {
    action: 'Set hostPID: true in the pod of the agent.',
  })
}

/** Nobody is refused by it: who is served by old facts is on record all the same. */
function recordOutage({ isOver, containers }: OutageTold, limit: Seconds, audit: PodsSetUp['audit']): void {
  const facts = { event: 'pods', allowed: true, count: containers } as const
  const detail = `the source of pod facts is down: known containers keep their identities for up to ${limit}s`
  if (isOver) audit.append({ ...facts, detail: 'the source of pod facts is back' })
  else audit.append({ ...facts, reason: 'pod_facts_unavailable', detail })
}

function verificationOf({ kubernetes }: Config): Verification {
  const { verification, legacyAccess, caFile, certificateFile } = kubernetes.kubelet
  if (legacyAccess === 'read_only_port') return { kind: 'plain' }
  if (verification === 'skip') return { kind: 'skip' }
  const file = verification === 'pinned' ? certificateFile : (caFile ?? `${ACCOUNT_DIRECTORY}/ca.crt`)
  if (file === undefined) throw new Fault('config_invalid', 'kubernetes.kubelet.certificate_file is missing')
  return { kind: verification, file }
}

function urlOf({ kubernetes }: Config, pod: PodEnvironment | undefined): string {
  const { url, legacyAccess } = kubernetes.kubelet
  const ip = pod?.nodeIp
  const host = ip?.includes(':') ? `[${ip}]` : ip
  const found = url ?? (host && `https://${host}:10250`)
  if (found === undefined)
    throw new Fault('config_invalid', 'where the kubelet is cannot be known: NODE_IP is not set', {
      action: 'Set NODE_IP from status.hostIP in the pod of the agent, or kubernetes.kubelet.url.',
    })
  return legacyAccess === 'read_only_port' ? `http://${new URL(found).hostname}:${READ_ONLY_PORT}` : found
}

function reportWeak({ kubernetes }: Config, health: Health): void {
  const { verification, legacyAccess } = kubernetes.kubelet
  if (verification === 'skip' && legacyAccess !== 'read_only_port')
    health.degrade({
      code: 'kubelet_unverified',
      message: 'the kubelet is not verified: whoever answers on its address decides who every pod is',
      action: 'Set kubernetes.kubelet.verification to cluster-ca or pinned.',
    })
  if (legacyAccess !== 'off')
    health.degrade({
      code: 'kubelet_legacy',
      message:
        legacyAccess === 'nodes_proxy'
          ? 'the token of the agent may run commands in every pod of the node (nodes/proxy)'
          : 'facts of pods come from the read-only port, where nobody is verified',
      action: 'On Kubernetes 1.33 or newer grant nodes/pods and set kubernetes.kubelet.legacy_access: off.',
    })
}
