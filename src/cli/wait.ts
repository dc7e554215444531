/** `holdfast wait`: for init containers and start scripts: returns once the agent answers, or gives an identity. */
import { Fault } from '../base/fault.ts'
import { askAsWorkload, type Shown, type Where } from './agent.ts'
import { exitCodeOf } from './failure.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json, parseSpan } from './render.ts'

export interface WaitOptions extends Where, Shown {
  /** Wait until this process has an identity, not only until the agent answers. */
  readonly identity?: boolean
  readonly timeout?: string
}

/** GET /v1/identity, as far as it is read here. */
export interface IdentityAnswer {
  readonly trust_domain: string
  readonly identities: readonly { readonly spiffe_id: string; readonly hint: string }[]
}

const DEFAULT_TIMEOUT = '30s'
const FIRST_PAUSE_MS = 50
const LONGEST_PAUSE_MS = 1_000

/** Asks until the answer is there; after the timeout throws what the last attempt said. */
export async function wait(options: WaitOptions, io: Io): Promise<ExitCode> {
  const end = io.now() + parseSpan('--timeout', options.timeout ?? DEFAULT_TIMEOUT)
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    const found = await attempt(options, io)
    if (!(found instanceof Fault)) {
      show(found, options, io)
      return EXIT.ok
    }
    if (io.now() >= end || !isPassing(found)) throw found
    await io.sleep(pause)
  }
}

function show({ identities }: IdentityAnswer, { output, identity }: WaitOptions, io: Io): void {
  if (output === 'json') io.out(json({ identities }))
  else if (identity) io.out(identities.map(({ spiffe_id }) => `${spiffe_id}\n`).join(''))
}

const NOBODY: IdentityAnswer = { trust_domain: '', identities: [] }

async function attempt(options: WaitOptions, io: Io): Promise<IdentityAnswer | Fault> {
  try {
    return await askAsWorkload<IdentityAnswer>(options, io, { method: 'GET', path: '/v1/identity' })
  } catch (caught) {
    const fault = Fault.from(caught)
    // An agent that refuses an identity answers all the same.
    return !options.identity && fault.reason === 'no_identity' ? NOBODY : fault
  }
}

/** What time may mend: a wrong command line, it does not. */
function isPassing(fault: Fault): boolean {
  const code = exitCodeOf(fault)
  return code === EXIT.unreachable || code === EXIT.refused
}
