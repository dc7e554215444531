/** IP addresses and ranges of policy files: what egress may dial though it is near, each in one form only. */
import { BlockList, isIPv4, isIPv6 } from 'node:net'
import { Fault } from '../base/fault.ts'

/** The shortest prefixes of ranges: wider ones would be no list any more. */
const PREFIX_MIN = 8

/** An IP address, or a range with its prefix, in the one form that RFC 5952 and RFC 4632 give it. */
export function parseAddress(text: string): string {
  const [address = '', prefix, ...rest] = text.split('/')
  const bits = isIPv4(address) ? 32 : isIPv6(address) && !address.includes('%') ? 128 : 0
  if (bits === 0 || rest.length > 0) throw invalid(`${JSON.stringify(text)} is not an IP address or a range`)
  const canonical = canonicalAddress(address, bits)
  if (canonical.startsWith('::ffff:')) throw invalid(`${JSON.stringify(text)}: write the IPv4 address itself`)
  if (prefix === undefined) return same(text, canonical)
  const length = /^(?:0|[1-9][0-9]{0,2})$/.test(prefix) ? Number(prefix) : Number.NaN
  if (!(length >= PREFIX_MIN && length <= bits)) {
    throw invalid(`${JSON.stringify(text)}: a prefix is from ${PREFIX_MIN} to ${bits}`)
  }
  if (!startsRange(canonical, bits, length))
    throw invalid(`${JSON.stringify(text)} has bits after its prefix`)
  return same(text, `${canonical}/${length}`)
}

function canonicalAddress(address: string, bits: number): string {
  return bits === 32 ? address : new URL(`http://[${address}]`).hostname.slice(1, -1)
}

function same(text: string, canonical: string): string {
  if (text !== canonical) throw invalid(`${JSON.stringify(text)} is not canonical: wanted ${canonical}`)
  return text
}

function startsRange(address: string, bits: number, length: number): boolean {
  const parts = bits === 32 ? address.split('.').map(Number) : wordsOf(address)
  const size = BigInt(bits / parts.length)
  const value = parts.reduce((sum, part) => (sum << size) | BigInt(part), 0n)
  return (value & ((1n << BigInt(bits - length)) - 1n)) === 0n
}

/** The eight words of an IPv6 address in its shortest form. */
function wordsOf(address: string): readonly number[] {
  const [head = '', tail] = address.split('::')
  const words = (text: string) =>
    text === '' ? [] : text.split(':').map((word) => Number.parseInt(word, 16))
  const [before, after] = [words(head), words(tail ?? '')]
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after]
}

function invalid(message: string): Fault {
  return new Fault('policy_invalid', message)
}

/** Whether `address` is in one of `ranges`, in the forms that `parseAddress` gives; IPv4 in IPv6 form counts as IPv4. */
export function isInRanges(address: string, ranges: readonly string[]): boolean {
  const plain = address.startsWith('::ffff:') && isIPv4(address.slice(7)) ? address.slice(7) : address
  const family = isIPv4(plain) ? 'ipv4' : isIPv6(plain) ? 'ipv6' : undefined
  if (!family) return false
  const list = new BlockList()
  for (const range of ranges) {
    const [start = '', prefix] = range.split('/')
    const type = isIPv4(start) ? 'ipv4' : 'ipv6'
    list.addSubnet(start, prefix === undefined ? (type === 'ipv4' ? 32 : 128) : Number(prefix), type)
  }
  return list.check(plain, family)
}
