/** How a command fails: four parts on standard error (what, why, do this, code), one JSON object, an exit code. */
import { Fault, printable, type Reason } from '../base/fault.ts'
import { problemsOf, problemText } from '../base/problem.ts'
import { REASONS } from '../base/reasons.ts'
import { EXIT, type ExitCode } from './io.ts'
import { tinted } from './render.ts'

const USAGE: ReadonlySet<Reason> = new Set([
  'usage',
  'invalid_request',
  'url_refused',
  'spiffe_id_invalid',
  'config_invalid',
  'policy_invalid',
  'policy_writable',
  'entry_too_weak',
  'hardening_missing',
  'agent_running',
  'socket_unusable',
])
const UNREACHABLE: ReadonlySet<Reason> = new Set(['agent_unreachable', 'not_ready', 'draining', 'deadline'])
const FAILED: ReadonlySet<Reason> = new Set(['bug', 'canceled'])

/** Whose fault it is, as scripts see it. */
export function exitCodeOf({ reason }: Fault): ExitCode {
  if (USAGE.has(reason)) return EXIT.usage
  if (UNREACHABLE.has(reason)) return EXIT.unreachable
  return FAILED.has(reason) ? EXIT.failed : EXIT.refused
}

/** What a person reads. */
export function failureText(fault: Fault, isColored: boolean): string {
  const what = REASONS[fault.reason].cause
  const rows = [
    ...labelled('why', whyOf(fault, what)),
    ...labelled('do', [fault.action]),
    ...labelled('ask', askOf(fault)),
    ...labelled('code', [`${fault.reason}  ${fault.toJSON().docs}`]),
  ]
  const head = `${tinted('Error:', 'red', isColored)} ${what}`
  return `${[head, ...rows.map(([label, text]) => `  ${tinted(label, 'dim', isColored)} ${text}`)].join('\n')}\n`
}

/** What a script reads, on one line: the shape of the wire, with every problem of a file and every socket that was tried. */
export function failureJson(fault: Fault): string {
  const problems = problemsOf(fault).map(problemText)
  return `${JSON.stringify({ error: { ...fault.toJSON(), ...(problems.length > 0 ? { problems } : {}) } })}\n`
}

function whyOf(fault: Fault, what: string): readonly string[] {
  const problems = problemsOf(fault).map(problemText)
  if (problems.length > 0) return problems
  return fault.message === what ? [] : [fault.message]
}

/** Policy's owners are other people than the reader; the caller and the agent's operator are not. */
function askOf({ owner, retryAfterSeconds }: Fault): readonly string[] {
  const isLayer = owner !== 'caller' && owner !== 'agent'
  const later = retryAfterSeconds === undefined ? [] : [`again in ${retryAfterSeconds}s`]
  return isLayer ? [`whoever owns ${owner}`, ...later] : later
}

const LABEL_WIDTH = 4

function labelled(label: string, texts: readonly string[]): readonly (readonly [string, string])[] {
  return texts.map((text, index) => [(index === 0 ? label : '').padEnd(LABEL_WIDTH), printable(text)])
}

// JWTs begin with `{"` in base64; PEM keys with their dashes.
const SECRET = /eyJ[A-Za-z0-9_-]{10,}|-----BEGIN/

/** Refuses an argument that looks like a secret: every process on the machine can read it (`/proc/PID/cmdline`). */
export function refuseSecrets(args: readonly string[]): void {
  const index = args.findIndex((arg) => SECRET.test(arg))
  if (index < 0) return
  throw new Fault(
    'usage',
    `argument ${index + 1} looks like a token or a key, and every user of the machine can read arguments`,
    {
      action:
        'Hand it over in a file or on standard input (--token-file FILE, `token inspect --file FILE`). Replace the token.',
    },
  )
}
