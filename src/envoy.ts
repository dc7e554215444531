/**
 * What an Envoy asks of the workload socket, by full service name: SVIDs and bundles for its TLS, and to have its requests
 * signed. It sends no security header.
 */
import type { Core, CoreOptions } from './core.ts'
import { signCheckHandlers } from './egress/ext-authz.ts'
import { openExtProc } from './egress/ext-proc.ts'
import type { LoadReleases } from './egress/release-api.ts'
import { SDS, type SdsOptions, sdsHandlers } from './issue/sds.ts'
import type { Handlers } from './serve/grpc.ts'
import { OwnerLimits } from './serve/limits.ts'

const MILLIS = 1000

/** The services, and the end of their streams. */
export interface EnvoySide {
  readonly services: Readonly<Record<string, Handlers>>
  /** Ends in good order what would else be cut off. */
  drain(): void
}

/** Who calls is attested like every other caller of the socket. */
export function openEnvoySide(options: CoreOptions, core: Core, load: LoadReleases): EnvoySide {
  const { audit, clock, config, metrics } = options
  const { book } = core
  const headTimeout = config.limits.headerTimeout * MILLIS
  const answerTimeout = config.egress.responseTimeout * MILLIS
  const record = { audit, book, metrics }
  const extProc = openExtProc({ ...record, load, clock, headTimeout, answerTimeout })
  return {
    services: {
      [SDS]: sdsHandlers(sdsOptions(options, core)),
      'envoy.service.auth.v3.Authorization': signCheckHandlers({ ...record, load }),
      'envoy.service.ext_proc.v3.ExternalProcessor': extProc.handlers,
    },
    drain: extProc.drain,
  }
}

function sdsOptions({ audit, clock, config, log, metrics }: CoreOptions, core: Core): SdsOptions {
  const { bundles, revocations, rotator, svids } = core
  const { rootca, validator, waitingPerUid, waitingTime: patience } = config.sds
  const waiting = new OwnerLimits('waiting streams', 'too_many_calls', waitingPerUid, config.limits.calls)
  metrics.gauge('holdfast_sds_waiting', 'Streams of proxies that wait for an entry.', () => waiting.all)
  const source = { svids, bundles, revocations, rootca, validator }
  return { ...source, rotator, audit, log, metrics, clock, waiting, patience }
}
