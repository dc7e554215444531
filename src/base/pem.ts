/** PEM (RFC 7468): made of DER by bytes only, since a string of a private key could not be overwritten; and found in text. */

const ALPHABET = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', 'latin1')
const PAD = '='.charCodeAt(0)
const NEWLINE = '\n'.charCodeAt(0)
const LINE_BYTES = 48

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** The blocks of certificates in `text`, in their order; what else stands there is left out. */
export function certificateBlocks(text: string): readonly string[] {
  return text.match(CERTIFICATE) ?? []
}

/** One block, with a newline at its end. The buffer is the caller's to overwrite. */
export function pemOf(label: 'CERTIFICATE' | 'PRIVATE KEY', der: Buffer): Buffer {
  const head = Buffer.from(`-----BEGIN ${label}-----\n`, 'latin1')
  const tail = Buffer.from(`-----END ${label}-----\n`, 'latin1')
  const lines = Math.ceil(der.length / LINE_BYTES)
  const out = Buffer.alloc(head.length + Math.ceil(der.length / 3) * 4 + lines + tail.length)
  head.copy(out)
  let at = head.length
  for (let start = 0; start < der.length; start += LINE_BYTES)
    at = writeLine(out, at, der, start, Math.min(start + LINE_BYTES, der.length))
  tail.copy(out, at)
  return out
}

/** Writes the base64 of `der` from `start` to `end` and a newline; where the next line begins. */
function writeLine(out: Buffer, at: number, der: Buffer, start: number, end: number): number {
  let next = at
  for (let from = start; from < end; from += 3) {
    const [first = 0, second, third] = [der[from], der[from + 1], der[from + 2]]
    const [hasSecond, hasThird] = [from + 1 < end, from + 2 < end]
    const bits = (first << 16) | ((second ?? 0) << 8) | (third ?? 0)
    out[next++] = ALPHABET[bits >> 18] ?? 0
    out[next++] = ALPHABET[(bits >> 12) & 63] ?? 0
    out[next++] = hasSecond ? (ALPHABET[(bits >> 6) & 63] ?? 0) : PAD
    out[next++] = hasThird ? (ALPHABET[bits & 63] ?? 0) : PAD
  }
  out[next] = NEWLINE
  return next + 1
}
