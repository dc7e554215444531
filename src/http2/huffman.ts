/** Huffman-coded strings of header blocks (RFC 7541 s.5.2, Appendix B), read four bits at a time. */
import { HpackError } from './hpack-error.ts'

/**
 * How many bits the code of each octet has, as digits of base 36, and at the end those of the end symbol. The code is
 * canonical: of codes of one length, that of the greater octet is greater, so that this is all of it.
 */
const LENGTHS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djd' +
  'e6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmm' +
  'nmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu'
const END_SYMBOL = 256
const LONGEST = 30

/** Inner nodes of the code's tree by number: what follows a 0 and a 1. A leaf is the complement of its symbol. */
type Tree = readonly (readonly [number, number])[]

function treeOf(digits: string): Tree {
  const lengths = Array.from(digits, (digit) => Number.parseInt(digit, 36))
  const tree: [number, number][] = [[0, 0]]
  let code = 0
  for (let length = 1; length <= LONGEST; length++, code *= 2)
    for (let symbol = 0; symbol <= END_SYMBOL; symbol++)
      if (lengths[symbol] === length) grow(tree, code++, length, symbol)
  return tree
}

function grow(tree: [number, number][], code: number, length: number, symbol: number): void {
  let node = 0
  for (let bit = length - 1; bit > 0; bit--) {
    const way = (code >>> bit) & 1
    const branch = tree[node] as [number, number]
    if (branch[way] === 0) branch[way] = tree.push([0, 0]) - 1
    node = branch[way] as number
  }
  ;(tree[node] as [number, number])[code & 1] = ~symbol
}

/**
 * For each inner node and four bits: the node they lead to, what octet they end (no code is shorter than five bits),
 * whether a string may end there, and whether they spell the end symbol, which no string holds.
 */
const NEXT = 0xffff
const OCTET_SHIFT = 16
const HAS_OCTET = 1 << 24
const MAY_END = 1 << 25
const IS_WRONG = 1 << 26

function stepsOf(tree: Tree): Uint32Array {
  const ends = endsOf(tree)
  const steps = new Uint32Array(tree.length * 16)
  for (let node = 0; node < tree.length; node++)
    for (let bits = 0; bits < 16; bits++) steps[node * 16 + bits] = stepOf(tree, ends, node, bits)
  return steps
}

function stepOf(tree: Tree, ends: ReadonlySet<number>, from: number, bits: number): number {
  let node = from
  let found = 0
  for (let bit = 3; bit >= 0; bit--) {
    const next = (tree[node] as readonly [number, number])[((bits >> bit) & 1) as 0 | 1]
    if (next >= 0) {
      node = next
      continue
    }
    if (~next === END_SYMBOL) return IS_WRONG
    found = HAS_OCTET | (~next << OCTET_SHIFT)
    node = 0
  }
  return node | found | (ends.has(node) ? MAY_END : 0)
}

/** Padding is shorter than an octet and all ones: the nodes of up to seven of them. */
function endsOf(tree: Tree): ReadonlySet<number> {
  const ends = new Set([0])
  let node = 0
  for (let bits = 1; bits <= 7; bits++) {
    node = (tree[node] as readonly [number, number])[1]
    ends.add(node)
  }
  return ends
}

const steps = stepsOf(treeOf(LENGTHS))
/** No code is shorter than five bits. */
const OCTETS_LIMIT = 8 / 5

/** The octets from `start` to `end` as text of one character an octet; throws HpackError where they are no such string. */
export function decodeHuffman(block: Buffer, start: number, end: number): string {
  const text = Buffer.allocUnsafe(Math.ceil((end - start) * OCTETS_LIMIT))
  let length = 0
  let step = MAY_END
  for (let half = start * 2; half < end * 2; half++) {
    const octet = block[half >> 1] as number
    const bits = half & 1 ? octet & 0xf : octet >> 4
    step = steps[(step & NEXT) * 16 + bits] as number
    if (step & IS_WRONG) throw new HpackError()
    if (step & HAS_OCTET) text[length++] = step >>> OCTET_SHIFT
  }
  if (!(step & MAY_END)) throw new HpackError()
  return text.toString('latin1', 0, length)
}
