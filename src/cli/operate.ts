/** `holdfast drain` and `holdfast log level`: what an operator tells a running agent. */
import { askAsOperator, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json } from './render.ts'

/** Lets calls under way end, then the agent. */
export async function drain(options: Where & Shown, io: Io): Promise<ExitCode> {
  const answer = await askAsOperator<object>(options, io, { method: 'POST', path: '/v1/drain', body: {} })
  io.out(
    options.output === 'json'
      ? json(answer)
      : 'Draining: no new calls; the agent ends when those under way have, and its keys with it.\n',
  )
  return EXIT.ok
}

/** Until the agent restarts. */
export async function setLogLevel(level: string, options: Where & Shown, io: Io): Promise<ExitCode> {
  const body = { level }
  const answer = await askAsOperator<object>(options, io, { method: 'POST', path: '/v1/log-level', body })
  io.out(
    options.output === 'json'
      ? json(answer)
      : `The agent logs from ${level} on, until it restarts; log.level in its configuration stays.\n`,
  )
  return EXIT.ok
}
