/** `holdfast proof METHOD URL`: a DPoP proof for one request (RFC 9449), ready for curl; the token stays in its file. */
import { readFileSync } from 'node:fs'
import { Fault } from '../base/fault.ts'
import { askAsWorkload, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json } from './render.ts'

export interface ProofOptions extends Where, Shown {
  readonly tokenFile?: string
  readonly nonce?: string
  readonly jkt?: string
  readonly spiffeId?: string
  /** Only the header line, for `curl -H @-`. */
  readonly header?: boolean
}

/** What the agent answers (POST /v1/dpop). */
interface DpopAnswer {
  readonly proof: string
  readonly jkt: string
  readonly jti: string
  readonly iat: number
}

export async function proof(method: string, url: string, options: ProofOptions, io: Io): Promise<ExitCode> {
  const token = options.tokenFile === undefined ? undefined : await readToken(options.tokenFile, io)
  const body = {
    method,
    url,
    ...(token === undefined ? {} : { access_token: token }),
    ...(options.nonce === undefined ? {} : { nonce: options.nonce }),
    ...(options.jkt === undefined ? {} : { jkt: options.jkt }),
    ...(options.spiffeId === undefined ? {} : { spiffe_id: options.spiffeId }),
  }
  const answer = await askAsWorkload<DpopAnswer>(options, io, { method: 'POST', path: '/v1/dpop', body })
  if (options.output === 'json') io.out(json(answer))
  else if (options.header) io.out(`DPoP: ${answer.proof}\n`)
  else io.out(`${curlText(method, url, answer.proof, options.tokenFile)}\n`)
  return EXIT.ok
}

const TOKEN_LIMIT = 16_384

/** The token in `file`, or on standard input for `-`; throws usage. Its text appears nowhere else. */
export async function readToken(file: string, io: Io): Promise<string> {
  const token = (file === '-' ? await io.input() : fileText(file)).trim()
  if (token === '' || token.length > TOKEN_LIMIT || !/^[\x21-\x7e]+$/.test(token)) {
    const name = file === '-' ? 'standard input' : file
    throw new Fault('usage', `${name} holds no access token of 1 to ${TOKEN_LIMIT} characters`, {
      action: 'Put the token alone into the file, as the authorization server issued it.',
    })
  }
  return token
}

function fileText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new Fault('usage', `${file}: cannot be read`, {
      action: 'Name a file that this user may read, or - for standard input.',
      cause: error,
    })
  }
}

/**
 * A command line that sends the request. The token goes in by standard input: as an argument of curl, every user of
 * the machine could read it; the proof is good for this one request only.
 */
export function curlText(method: string, url: string, header: string, tokenFile: string | undefined): string {
  // With -X HEAD curl waits for a body that never comes.
  const verb = method === 'HEAD' ? '-I' : `-X ${quoted(method)}`
  const request = `curl ${verb} -H ${quoted(`DPoP: ${header}`)}`
  if (tokenFile === undefined) return `${request} ${quoted(url)}`
  const token = tokenFile === '-' ? '"$TOKEN"' : `"$(cat ${quoted(tokenFile)})"`
  return `printf 'Authorization: DPoP %s' ${token} | ${request} -H @- ${quoted(url)}`
}

/** One word for a POSIX shell. */
function quoted(text: string): string {
  return /^[A-Za-z0-9_./:@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
