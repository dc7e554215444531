/**
 * Whether the agent's token may do more at the kubelet than the agent needs. The logs of a container want `nodes/proxy`, by which
 * a token also runs commands in every pod: asked for a pod that cannot be, the kubelet says whether it would have looked.
 */
import type { Clock, Millis } from '../base/clock.ts'
import type { ClusterHttps } from '../cluster/https.ts'
import type { Health } from '../telemetry/health.ts'

export interface KubeletRightsOptions {
  readonly https: Pick<ClusterHttps, 'ask'>
  readonly clock: Clock
  readonly health: Health
  /** Ends the looking. */
  readonly signal: AbortSignal
}

// A path that no handler is behind is answered with 404 whatever the token may do. No namespace has an underscore in its name.
const PATH = '/containerLogs/holdfast_preflight/none/none'
// Rights come before the rest: who hears that there is nothing, or nothing in JSON (406), was let in. 405: debugging handlers are
// off, and nobody runs commands.
const ALLOWED: ReadonlySet<number> = new Set([200, 400, 404, 406])
const REFUSED: ReadonlySet<number> = new Set([403, 405])
const EVERY: Millis = 600_000
const AGAIN: Millis = 60_000
const ANSWER_LIMIT = 64 * 1024

/** Looks now, and then every ten minutes: rights change while agents run. An answer that tells nothing changes nothing. */
export function watchKubeletRights(options: KubeletRightsOptions): void {
  const { clock, signal } = options
  let cancel = () => {}
  const look = async (): Promise<void> => {
    const next = await isTold(options).then(
      (told) => (told ? EVERY : AGAIN),
      () => AGAIN,
    )
    if (!signal.aborted) cancel = clock.after(next, () => void look())
  }
  signal.addEventListener('abort', () => cancel(), { once: true })
  void look()
}

async function isTold({ https, health, signal }: KubeletRightsOptions): Promise<boolean> {
  const { status } = await https.ask(PATH, { signal, maxBytes: ANSWER_LIMIT })
  if (REFUSED.has(status)) health.recover('kubelet_overpowered')
  if (ALLOWED.has(status))
    health.degrade({
      code: 'kubelet_overpowered',
      message:
        'the kubelet lets the token of the agent do everything: whoever takes the agent over runs commands in every pod of the node',
      action:
        'Whoever owns the cluster takes nodes/proxy from the service account of the agent and grants nodes/pods, or sets authorization.mode: Webhook on the kubelet.',
    })
  return REFUSED.has(status) || ALLOWED.has(status)
}
