/** The SDK: what an application imports from `holdfast/client`. */

/** The default socket of an agent that runs as root. */
export const DEFAULT_SOCKET = '/run/holdfast/public/workload.sock'
