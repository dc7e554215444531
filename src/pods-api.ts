/** The Pods API of the kubelet, put together from the configuration, for the agent and for `holdfast check`. */
import type { PodLists } from './attest/pod-source.ts'
import { PodsApi } from './attest/pods-api.ts'
import type { Clock } from './base/clock.ts'
import type { Config } from './settings.ts'

const MILLIS = 1000
const MIB = 1024 * 1024

/** What asks at the socket that is configured; nothing is asked yet. */
export function openPodsApi(settings: Config['kubernetes']['podsApi'], clock: Clock): PodLists {
  const { socket, timeout, maxMib } = settings
  const maxBytes = maxMib * MIB
  return new PodsApi({
    socket,
    // Clients of gRPC are loaded where there is something to ask by them.
    connect: async () => (await import('./client/grpc.ts')).connectBytes(socket, maxBytes),
    clock,
    timeout: timeout * MILLIS,
    maxBytes,
  })
}
