/** How commands reach the agent: the workload door as this process, the admin door as this user. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { type AgentCall, callAgent } from '../client/http.ts'
import { adminSockets, findSocket, workloadSockets } from '../client/socket.ts'
import type { Io } from './io.ts'

/** Options that say where the agent is. */
export interface Where {
  readonly socket?: string
  readonly dir?: string
}

/** How the answer is written. */
export interface Shown {
  readonly output?: 'text' | 'json'
}

/** The workload socket that answers; throws agent_unreachable with every place that was tried. */
export function workloadSocket({ socket, dir }: Where, io: Io): Promise<string> {
  return findSocket(workloadSockets({ socket, dir, endpoint: io.environment.endpointSocket }))
}

/** The admin socket that answers; throws agent_unreachable, admin_denied. */
export function adminSocket({ dir }: Where, io: Io): Promise<string> {
  return findSocket(adminSockets({ dir, endpoint: io.environment.endpointSocket }))
}

/** The agent's directory, whether or not one runs: what was named, else the first default that exists. */
export function agentDir({ dir }: Where, io: Io): string {
  const places = adminSockets({ dir, endpoint: io.environment.endpointSocket })
  const dirs = places.map(({ path }) => dirname(dirname(path)))
  return dirs.find((each) => existsSync(each)) ?? dirs[0] ?? ''
}

/** Asks the agent as this process; `T` is what this version's agent answers. */
export async function askAsWorkload<T>(where: Where, io: Io, call: AgentCall): Promise<T> {
  return (await callAgent(await workloadSocket(where, io), call)) as T
}

/** Asks the agent as its operator. */
export async function askAsOperator<T>(where: Where, io: Io, call: AgentCall): Promise<T> {
  return (await callAgent(await adminSocket(where, io), call)) as T
}
