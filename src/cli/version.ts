/** `holdfast version`: this command's version and, where one answers, the agent's. */
import { release } from 'node:os'
import { printable } from '../base/fault.ts'
import { askAsOperator, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json } from './render.ts'

export async function version(options: Where & Shown, io: Io): Promise<ExitCode> {
  const agent = await agentVersion(options, io)
  const own = { version: io.version, node: process.versions.node, kernel: release() }
  if (options.output === 'json') io.out(json({ ...own, ...(agent === undefined ? {} : { agent }) }))
  else {
    io.out(`holdfast ${io.version} (Node ${own.node}, Linux ${own.kernel})\n`)
    if (agent !== undefined) io.out(`agent    ${printable(agent)}\n`)
  }
  return EXIT.ok
}

/** Undefined without an agent, and for users who may not ask it: a version is no reason to fail. */
async function agentVersion(options: Where, io: Io): Promise<string | undefined> {
  try {
    const { version } = await askAsOperator<{ readonly version: unknown }>(options, io, {
      method: 'GET',
      path: '/v1/status',
    })
    return typeof version === 'string' ? version : undefined
  } catch {
    return undefined
  }
}
