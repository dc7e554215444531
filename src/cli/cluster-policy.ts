/** The custom resources as part of an agent's policy: opened from the configuration, and what is told of them. */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Config, PodEnvironment } from '../config.ts'
import { type ClusterPolicySource, refusedTexts } from '../policy/kubernetes-source.ts'
import { ACCOUNT_DIRECTORY } from '../settings-kubernetes.ts'
import type { Health } from '../telemetry/health.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

/** An agent waits this long for the API server, and then begins with what files say; the rest is denied meanwhile. */
const FIRST_LOOK: Millis = 10_000

/** The source that `config` names, after its first look; throws config_invalid. */
export async function openClusterPolicy(
  { kubernetes }: Config,
  clock: Clock,
  pod: PodEnvironment | undefined,
): Promise<ClusterPolicySource | undefined> {
  const { resources, podLabels } = kubernetes
  if (resources.source === 'off') return undefined
  const url = resources.apiServer ?? pod?.apiServer
  if (url === undefined)
    throw new Fault('config_invalid', 'kubernetes.resources.api_server is missing: no pod says where it is')
  const { ClusterPolicySource } = await import('../policy/kubernetes-source.ts')
  const source = new ClusterPolicySource({
    url,
    caFile: resources.caFile ?? `${ACCOUNT_DIRECTORY}/ca.crt`,
    tokenFile: resources.tokenFile ?? `${ACCOUNT_DIRECTORY}/token`,
    clock,
    maxAge: resources.maxAge,
    className: resources.className,
    isDefaultClass: resources.classless,
    allLabels: podLabels.includes('*'),
    writesStatus: resources.writeStatus,
  })
  source.start()
  await source.seen(FIRST_LOOK)
  return source
}

export interface ClusterTellers {
  readonly log: Log
  readonly health: Health
  readonly metrics: Metrics
  readonly reload: () => void
}

/** Has `source` load policy again at changes, and tells what is wrong with it. */
export function followCluster(
  source: ClusterPolicySource,
  { log, health, metrics, reload }: ClusterTellers,
): void {
  let refused: readonly string[] = []
  metrics.gauge(
    'holdfast_cluster_objects_refused',
    'Custom resources that are not in force as they stand.',
    () => refused.length,
  )
  source.attach({
    onChange: reload,
    onFault: (fault) => {
      if (!fault) return health.recover('cluster_policy')
      log.warn('the custom resources cannot be read; what was last seen of them stays', {
        reason: fault.reason,
      })
      const { message, action } = fault
      health.degrade({ code: 'cluster_policy', message, action })
    },
    onReports: (reports) => {
      const texts = refusedTexts(reports)
      for (const text of texts) if (!refused.includes(text)) log.warn(`a custom resource is refused: ${text}`)
      refused = texts
      const [first] = texts
      if (first === undefined) return health.recover('cluster_objects')
      const more = texts.length > 1 ? ` (and ${texts.length - 1} more)` : ''
      health.degrade({
        code: 'cluster_objects',
        message: `a custom resource is refused: ${first}${more}`,
        action: 'Mend the object; `kubectl get -o yaml` shows the condition Accepted.',
      })
    },
  })
}
