/** A captured request, as raw HTTP text or as `curl -v` shows it; nothing of it is sent anywhere. */
import { Fault } from '../base/fault.ts'
import type { RawHeaders } from '../ingress/inbound.ts'

export interface Capture {
  readonly method: string
  /** As in the request line: a path with its query, or a whole URL. */
  readonly target: string
  readonly headers: RawHeaders
}

const TEXT_LIMIT = 256 * 1024
const REQUEST_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (\S{1,8192}) HTTP\/(?:1\.[01]|2|3)$/
const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*(.*?)[ \t]*$/

/** The first request in `text`; throws usage, which names a line and never quotes it. */
export function parseCapture(file: string, text: string): Capture {
  if (text.length > TEXT_LIMIT) throw wrong(`${file} is over ${TEXT_LIMIT} characters`)
  const lines = linesOf(text)
  const start = lines.findIndex(({ line }) => REQUEST_LINE.test(line))
  const [, method = '', target = ''] = REQUEST_LINE.exec(lines[start]?.line ?? '') ?? []
  if (start < 0) throw wrong(`${file} holds no request line such as GET /v1/items HTTP/1.1`)
  const headers: string[] = []
  for (const { line, at } of lines.slice(start + 1)) {
    if (line === '') break
    const [, name, value] = FIELD.exec(line) ?? []
    if (name === undefined || value === undefined)
      throw wrong(`${file}:${at} is no header: wanted Name: value`)
    headers.push(name, value)
  }
  return { method, target, headers }
}

/** Of `curl -v`, only what it sent: lines that begin with `>`. */
function linesOf(text: string): readonly { readonly line: string; readonly at: number }[] {
  const all = text.split(/\r?\n/).map((line, index) => ({ line, at: index + 1 }))
  const sent = all.filter(({ line }) => /^> ?/.test(line))
  return sent.length > 0 ? sent.map(({ line, at }) => ({ line: line.replace(/^> ?/, ''), at })) : all
}

function wrong(message: string): Fault {
  return new Fault('usage', message, {
    action: 'Capture the request with `curl -v`, or as raw HTTP text, headers first.',
  })
}
