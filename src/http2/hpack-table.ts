/** The tables that header blocks refer to by number (RFC 7541 s.2.3): the static one, and what the peer has added. */
import { HpackError } from './hpack-error.ts'

/** A name and a value, one character an octet. */
export type Field = readonly [name: string, value: string]

export type Fields = readonly Field[]

/** RFC 7541 Appendix A, from 1. */
const STATIC: Fields = `:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate`
  .split('\n')
  .map((line) => {
    const at = line.indexOf(' ')
    return at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1)]
  })

/** SETTINGS_HEADER_TABLE_SIZE where nobody says another. */
const SIZE_LIMIT = 4096
/** What an entry counts beside its octets (s.4.1). */
const ENTRY_SIZE = 32

/** Of one connection and direction; bounded by 4096 octets, 32 of them for each entry. */
export class HpackTable {
  /** The newest last. */
  readonly #entries: Field[] = []
  #size = 0
  #limit = SIZE_LIMIT

  /** The entry of that number (s.2.3.3); throws HpackError where there is none. */
  at(index: number): Field {
    const found =
      index <= STATIC.length
        ? STATIC[index - 1]
        : this.#entries[this.#entries.length - (index - STATIC.length)]
    if (!found) throw new HpackError()
    return found
  }

  add(field: Field): void {
    this.#size += sizeOf(field)
    this.#entries.push(field)
    this.#evict()
  }

  /** s.6.3: no more than what was allowed. */
  resize(limit: number): void {
    if (limit > SIZE_LIMIT) throw new HpackError()
    this.#limit = limit
    this.#evict()
  }

  #evict(): void {
    let gone = 0
    while (this.#size > this.#limit) this.#size -= sizeOf(this.#entries[gone++] as Field)
    if (gone > 0) this.#entries.splice(0, gone)
  }
}

function sizeOf([name, value]: Field): number {
  return name.length + value.length + ENTRY_SIZE
}
