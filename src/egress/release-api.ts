/** The doors of `Releases` on the workload socket: gRPC and JSON for headers, JSON alone for tokens. */
import type { Handlers } from '../serve/grpc.ts'
import type { Routes } from '../serve/http.ts'
import type { Releases } from './release.ts'
import { parseHeadersAsk, parseReleaseAsk, parseReportAsk } from './release-ask.ts'

/** The methods of `holdfast.v1.ProofService` that are served here. */
export function releaseHandlers(releases: Releases): Handlers {
  return {
    RequestHeaders: {
      unary: async (caller, request) => ({
        ...(await releases.headers(caller.workload(), parseHeadersAsk(request))),
      }),
    },
    ReportResponse: {
      unary: (caller, request) => ({ retry: releases.report(caller.workload(), parseReportAsk(request)) }),
    },
  }
}

/** The same as JSON. */
export function releaseRoutes(releases: Releases): Routes {
  return {
    'POST /v1/headers': ({ caller, body, signal }) =>
      releases.headers(caller.workload(), parseHeadersAsk(body), signal),
    'POST /v1/responses': ({ caller, body }) => ({
      retry: releases.report(caller.workload(), parseReportAsk(body)),
    }),
    'POST /v1/token': ({ caller, body, signal }) =>
      releases.token(caller.workload(), parseReleaseAsk(body), signal),
  }
}
