/** The doors of `Releases` on the workload socket: gRPC and JSON for headers, JSON alone for tokens. */
import type { Handlers } from '../serve/grpc.ts'
import type { Routes } from '../serve/http.ts'
import type { Releases } from './release.ts'
import {
  parseHeadersAsk,
  parseProbeAsk,
  parseProbeEndAsk,
  parseReleaseAsk,
  parseReportAsk,
} from './release-ask.ts'

/** Loads what releases when somebody asks. */
export type LoadReleases = () => Promise<Releases>

/** The methods of `holdfast.v1.ProofService` that are served here. */
export function releaseHandlers(load: LoadReleases): Handlers {
  return {
    RequestHeaders: {
      unary: async (caller, request, gone) => ({
        ...(await (await load()).headers(caller.workload(), parseHeadersAsk(request), gone)),
      }),
    },
    ReportResponse: {
      unary: async (caller, request) => ({
        retry: (await load()).report(caller.workload(), parseReportAsk(request)),
      }),
    },
  }
}

/** The same as JSON. */
export function releaseRoutes(load: LoadReleases): Routes {
  return {
    'POST /v1/headers': async ({ caller, body, signal }) =>
      (await load()).headers(caller.workload(), parseHeadersAsk(body), () => signal),
    'POST /v1/responses': async ({ caller, body }) => ({
      retry: (await load()).report(caller.workload(), parseReportAsk(body)),
    }),
    'POST /v1/probe-token': async ({ caller, body, signal }) =>
      (await load()).probe(caller.workload(), parseProbeAsk(body), () => signal),
    'POST /v1/probe-revocation': async ({ caller, body }) =>
      (await load()).endProbe(caller.workload(), parseProbeEndAsk(body)),
    'POST /v1/token': async ({ caller, body, signal }) =>
      (await load()).token(caller.workload(), parseReleaseAsk(body), () => signal),
  }
}
