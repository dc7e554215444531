/**
 * Which addresses egress may dial. Those that are near the agent rather than upstream (loopback, link-local, metadata
 * services, the node's own) are refused in every spelling, also inside IPv6 forms that carry an IPv4 address.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'

/** An address as 128 bits; IPv4 as RFC 4291 s.2.5.5.2 maps it. */
type Bits = bigint

interface Range {
  readonly first: Bits
  /** How many bits after the prefix are free. */
  readonly free: bigint
}

const MAPPED = 0xffffn << 32n

const NEAR: readonly Range[] = [
  // Unspecified, loopback, link-local with the metadata services, IETF's own, multicast, reserved (RFC 6890).
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '192.0.0.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '::/128',
  '::1/128',
  'fe80::/10',
  'fec0::/10',
  'ff00::/8',
  // Metadata services that are not link-local.
  '100.100.100.200/32',
  '168.63.129.16/32',
  'fd00:ec2::254/128',
  'fd20:ce::254/128',
].flatMap((text) => rangeOf(text) ?? [])

/** The address in `text`, without zone; undefined when it is none. */
export function bitsOf(text: string): Bits | undefined {
  if (isIPv4(text)) return MAPPED | joined(text.split('.').map(Number), 8n)
  const [address = ''] = text.split('%')
  if (!isIPv6(address)) return undefined
  return joined(wordsOf(new URL(`http://[${address}]`).hostname.slice(1, -1)), 16n)
}

/** Whether `address` may be dialled: it is not near, or `listed` (addresses and ranges of policy) names it. */
export function isDialable(address: string, listed: readonly string[], own: readonly string[]): boolean {
  const bits = bitsOf(address)
  if (bits === undefined) return false
  const forms = [bits, ...embedded(bits)]
  const isIn = (ranges: readonly Range[]) =>
    forms.some((form) => ranges.some(({ first, free }) => form >> free === first >> free))
  if (isIn(listed.flatMap((text) => rangeOf(text) ?? []))) return true
  return !isIn(NEAR) && !isIn(own.flatMap((text) => rangeOf(text) ?? []))
}

/** The addresses of this node's interfaces, as they are now. */
export function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address))
}

/** IPv4 addresses that an IPv6 one leads to: compatible, NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056). */
function embedded(bits: Bits): readonly Bits[] {
  const last = MAPPED | (bits & 0xffff_ffffn)
  const head = bits >> 32n
  if (head === 0n || head === 0x64_ff9b_0000_0000_0000_0000n) return [last]
  if (bits >> 80n === 0x64_ff9b_0001n) return [last]
  return bits >> 112n === 0x2002n ? [MAPPED | ((bits >> 80n) & 0xffff_ffffn)] : []
}

function rangeOf(text: string): Range | undefined {
  const [address = '', prefix] = text.split('/')
  const first = bitsOf(address)
  if (first === undefined) return undefined
  const size = isIPv4(address) ? 32 : 128
  return { first, free: BigInt(size - Number(prefix ?? size)) }
}

/** The eight words of an IPv6 address in its shortest form. */
function wordsOf(address: string): readonly number[] {
  const words = (text = '') => (text === '' ? [] : text.split(':').map((word) => Number.parseInt(word, 16)))
  const [head, tail] = address.split('::')
  const [before, after] = [words(head), words(tail)]
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after]
}

function joined(parts: readonly number[], size: bigint): Bits {
  return parts.reduce((sum, part) => (sum << size) | BigInt(part), 0n)
}
