/** Inputs close to good ones: most bugs of parsers are one wrong byte away. */
import fc from 'fast-check'

/** Runs of a fuzz target in the unit suite, with a seed so that a failure repeats. */
export const FUZZ = { numRuns: 400, seed: 20_260_101 }

type Edit = (bytes: Buffer) => Buffer

const at = fc.nat({ max: 100_000 })
const edits: fc.Arbitrary<Edit> = fc.oneof(
  fc.tuple(at, fc.nat({ max: 255 })).map(([index, byte]) => replace(index, Buffer.of(byte), 1)),
  fc.tuple(at, fc.nat({ max: 7 })).map(([index, bit]) => flip(index, bit)),
  fc
    .tuple(at, fc.uint8Array({ minLength: 1, maxLength: 8 }))
    .map(([index, bytes]) => replace(index, Buffer.from(bytes), 0)),
  fc
    .tuple(at, fc.integer({ min: 1, max: 16 }))
    .map(([index, count]) => replace(index, Buffer.alloc(0), count)),
  at.map((index) => (bytes: Buffer) => bytes.subarray(0, index % (bytes.length + 1))),
  fc.tuple(at, at).map(([from, to]) => copy(from, to)),
)

function replace(index: number, by: Buffer, count: number): Edit {
  return (bytes) => {
    const start = index % (bytes.length + 1)
    return Buffer.concat([bytes.subarray(0, start), by, bytes.subarray(start + count)])
  }
}

function flip(index: number, bit: number): Edit {
  return (bytes) => {
    const copied = Buffer.from(bytes)
    if (copied.length > 0) copied[index % copied.length] = (copied[index % copied.length] ?? 0) ^ (1 << bit)
    return copied
  }
}

/** Some of the input once more, elsewhere. */
function copy(from: number, to: number): Edit {
  return (bytes) => {
    const start = from % (bytes.length + 1)
    return replace(to, bytes.subarray(start, start + 24), 0)(bytes)
  }
}

/** One of `seeds` with one to four edits. */
export function mutations(seeds: readonly Buffer[]): fc.Arbitrary<Buffer> {
  const edited = fc.array(edits, { minLength: 1, maxLength: 4 })
  return fc
    .tuple(fc.constantFrom(...seeds), edited)
    .map(([seed, list]) => list.reduce((bytes, edit) => edit(bytes), seed))
}

/** The same for texts. */
export function textMutations(seeds: readonly string[]): fc.Arbitrary<string> {
  return mutations(seeds.map((seed) => Buffer.from(seed))).map((bytes) => bytes.toString())
}
