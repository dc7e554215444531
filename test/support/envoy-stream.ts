/** What an Envoy says on the signing services, for tests that say other than an Envoy would. */
import type { Message, RawClient, RawStream } from './raw-client.ts'
import { until } from './until.ts'

export const PROCESS = 'envoy.service.ext_proc.v3.ExternalProcessor/Process'
export const CHECK = 'envoy.service.auth.v3.Authorization/Check'

export type Lines = readonly (readonly [string, string])[]

/** Lines of a head, as ext_proc has them. */
export const headOf = (lines: Lines, isWhole = true): Message => ({
  headers: { headers: lines.map(([key, value]) => ({ key, raw_value: Buffer.from(value, 'latin1') })) },
  end_of_stream: isWhole,
})

/** The pseudo-headers of a GET of `url`, and more lines. */
export function linesOf(url: string, more: Lines = []): Lines {
  const [, scheme = '', authority = '', path = ''] = /^([a-z]+):\/\/([^/]*)(.*)$/.exec(url) ?? []
  const pseudo = { ':method': 'GET', ':scheme': scheme, ':authority': authority, ':path': path }
  return [...Object.entries(pseudo), ...more]
}

/** Opens a try; `told` is the `initial_metadata` of the filter. */
export function openTry(client: RawClient, told: Lines = []): RawStream {
  return client.open(PROCESS, undefined, told)
}

/** The first message, or how the stream ended. */
export const answerOf = (stream: RawStream) =>
  until('an answer of Process', () => stream.messages[0] ?? stream.ending)

/** Headers that an answer sets, whichever service gave it. */
export function setBy(answer: Message): Readonly<Record<string, string>> {
  const { request_headers: request, ok_response: ok } = answer
  const options = request?.response.header_mutation.set_headers ?? ok?.headers ?? []
  return Object.fromEntries(
    options.map(({ header }: Message) => [header.key, header.value ?? header.raw_value?.toString('latin1')]),
  )
}

/** Names that it removes. */
export const removedBy = ({ request_headers: request, ok_response: ok }: Message): readonly string[] =>
  request?.response.header_mutation.remove_headers ?? ok?.headers_to_remove ?? []

/** `signed`, or the reason of the refusal, from either service. */
export function outcomeOf(answer: Message): string {
  const { immediate_response: refused, denied_response: denied, code, info } = answer
  if (refused) return reasonIn(refused.body.toString())
  if (denied) return reasonIn(denied.body)
  if (code !== undefined) return info?.reason ?? code
  return setBy(answer)['dpop'] === undefined ? 'nothing' : 'signed'
}

const reasonIn = (body: string): string => (JSON.parse(body) as { error: { reason: string } }).error.reason

/** One try from its start to the agent's word. */
export async function processOnce(client: RawClient, lines: Lines, told: Lines = []): Promise<Message> {
  const stream = openTry(client, told)
  stream.send({ request_headers: headOf(lines) })
  const answer = await answerOf(stream)
  stream.cancel()
  return answer
}

/** A check; `more` are other attributes. */
export function checkOnce(client: RawClient, lines: Lines, extensions: object = {}, more: object = {}) {
  const of = (name: string) => lines.find(([key]) => key === name)?.[1]
  const rest = lines.filter(([key]) => !key.startsWith(':'))
  const http = { method: of(':method'), scheme: of(':scheme'), host: of(':authority'), path: of(':path') }
  return client.unary(
    CHECK,
    {
      attributes: {
        request: { http: { ...http, headers: Object.fromEntries(rest) } },
        context_extensions: extensions,
        ...more,
      },
    },
    [],
  )
}
