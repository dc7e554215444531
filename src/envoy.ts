/** What an Envoy asks of the workload socket, by full service name: to have its requests signed. It sends no security header. */
import type { Core, CoreOptions } from './core.ts'
import { signCheckHandlers } from './egress/ext-authz.ts'
import { extProcHandlers } from './egress/ext-proc.ts'
import type { LoadReleases } from './egress/release-api.ts'
import type { Handlers } from './serve/grpc.ts'

const MILLIS = 1000

/** The services; who calls is attested like every other caller of the socket. */
export function envoyServices(
  { clock, config }: CoreOptions,
  { book }: Core,
  load: LoadReleases,
): Readonly<Record<string, Handlers>> {
  const headTimeout = config.limits.headerTimeout * MILLIS
  const answerTimeout = config.egress.responseTimeout * MILLIS
  return {
    'envoy.service.auth.v3.Authorization': signCheckHandlers({ book, load }),
    'envoy.service.ext_proc.v3.ExternalProcessor': extProcHandlers({
      book,
      load,
      clock,
      headTimeout,
      answerTimeout,
    }),
  }
}
