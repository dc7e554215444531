/** An HTTP message as signatures see it (RFC 9421 s.2): its control data and its fields, each line apart. */

/** Names and values in turn, as received: duplicates are seen. */
export type RawFields = readonly string[]

/** A request. What proxies say of it comes from configuration, never from its own fields. */
export interface SignedRequest {
  readonly method: string
  readonly scheme: string
  /** Host in lower case, and any port that is not the scheme's own. */
  readonly authority: string
  /** Escapes as sent. */
  readonly path: string
  /** Empty, or `?` and what follows it. */
  readonly query: string
  readonly headers: RawFields
  readonly trailers?: RawFields
}

/** A response, and the request it answers where a signature binds them (s.2.4). */
export interface SignedResponse {
  readonly status: number
  readonly headers: RawFields
  readonly trailers?: RawFields
  readonly request?: SignedRequest
}

export type SignedMessage = SignedRequest | SignedResponse

export function isRequest(message: SignedMessage): message is SignedRequest {
  return 'method' in message
}

/** Every value of the field, in order, without the blanks around it (RFC 9110 s.5.5). */
export function fieldValues(fields: RawFields, name: string): readonly string[] {
  const values: string[] = []
  for (let at = 0; at + 1 < fields.length; at += 2)
    if (fields[at]?.toLowerCase() === name) values.push(trimmed(fields[at + 1] ?? ''))
  return values
}

/** The names, as they stand, in order. */
export function fieldNames(fields: RawFields): readonly string[] {
  return fields.filter((_, at) => at % 2 === 0)
}

function trimmed(value: string): string {
  let [start, end] = [0, value.length]
  while (start < end && isBlank(value[start])) start += 1
  while (end > start && isBlank(value[end - 1])) end -= 1
  return value.slice(start, end)
}

function isBlank(character: string | undefined): boolean {
  return character === ' ' || character === '\t'
}
