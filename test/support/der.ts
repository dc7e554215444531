/** A DER writer that writes whatever it is told, well-formed or not. */

/** One value: identifier octet, length in the fewest bytes, content. */
export function tlv(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content])
  const bytes = Buffer.from(
    length.toString(16).padStart(2 * Math.ceil(Math.log2(length + 1) / 8), '0'),
    'hex',
  )
  return Buffer.concat([Buffer.from([tag, 0x80 | bytes.length]), bytes, content])
}

export const sequence = (...parts: readonly Buffer[]) => tlv(0x30, ...parts)
export const set = (...parts: readonly Buffer[]) => tlv(0x31, ...parts)
export const integer = (hex: string) => tlv(0x02, Buffer.from(hex, 'hex'))
export const oid = (hex: string) => tlv(0x06, Buffer.from(hex, 'hex'))
export const octets = (content: Buffer) => tlv(0x04, content)
export const bits = (content: Buffer, unused = 0) => tlv(0x03, Buffer.from([unused]), content)
export const boolean = (value: boolean) => tlv(0x01, Buffer.from([value ? 0xff : 0]))
export const nothing = Buffer.from('0500', 'hex')
export const utcTime = (text: string) => tlv(0x17, Buffer.from(text))
export const generalizedTime = (text: string) => tlv(0x18, Buffer.from(text))

/** A time as RFC 5280 s.4.1.2.5 wants it. */
export function time(at: number): Buffer {
  const text = `${new Date(at * 1000).toISOString().replace(/\D/g, '').slice(0, 14)}Z`
  return at < Date.UTC(2050, 0, 1) / 1000 ? utcTime(text.slice(2)) : generalizedTime(text)
}
