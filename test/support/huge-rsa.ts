/** An RSA key far over any size in use, with which tokens are really signed: making one the usual way takes minutes. */
import { createHash, generatePrimeSync } from 'node:crypto'
import type { Jkt, Signer } from '../../src/proof/signer.ts'
import { thumbprint } from '../../src/spiffe/jwk.ts'

const PRIME_BITS = 1_024
const EXPONENT = 65_537n
/** DER of a DigestInfo of SHA-256, up to the hash (RFC 8017 s.9.2). */
const SHA256 = Buffer.from('3031300d060960864801650304020105000420', 'hex')

/** A key of many primes (RFC 8017 s.3.1), whose public half looks like any other; `bits` is a multiple of 1024. */
export function makeHugeRsa(bits: number): Signer {
  const primes: bigint[] = []
  while (primes.length < bits / PRIME_BITS) {
    // The topmost bits are set, so that the product has them all.
    const prime = generatePrimeSync(PRIME_BITS, { bigint: true })
    if ((prime - 1n) % EXPONENT !== 0n && prime >> BigInt(PRIME_BITS - 4) === 15n) primes.push(prime)
  }
  const modulus = primes.reduce((product, prime) => product * prime)
  const n = bytesOf(modulus, bits / 8).toString('base64url')
  const publicJwk = { kty: 'RSA', n, e: 'AQAB' } as const
  return {
    publicJwk,
    alg: 'RS256',
    jkt: thumbprint(publicJwk) as Jkt,
    // RSASSA-PKCS1-v1_5 (RFC 8017 s.8.2.1).
    sign: (input) => bytesOf(rootOf(padded(input, bits / 8), primes), bits / 8),
  }
}

function padded(input: Uint8Array, size: number): bigint {
  const info = Buffer.concat([SHA256, createHash('sha256').update(input).digest()])
  const fill = Buffer.alloc(size - info.length - 3, 0xff)
  return BigInt(`0x${Buffer.concat([Buffer.from([0, 1]), fill, Buffer.from([0]), info]).toString('hex')}`)
}

/** The number whose power by the exponent is `value`, prime by prime (the Chinese remainder theorem, Garner). */
function rootOf(value: bigint, primes: readonly bigint[]): bigint {
  let [root, product] = [0n, 1n]
  for (const prime of primes) {
    const part = power(value % prime, inverse(EXPONENT, prime - 1n), prime)
    const step = (((part - root) % prime) + prime) * inverse(product % prime, prime)
    root += product * (step % prime)
    product *= prime
  }
  return root
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n
  for (let [square, rest] = [base, exponent]; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus
    square = (square * square) % modulus
  }
  return result
}

function inverse(of: bigint, modulus: bigint): bigint {
  let [a, b, x, y] = [of % modulus, modulus, 1n, 0n]
  while (b > 0n) {
    const times = a / b
    ;[a, b] = [b, a - times * b]
    ;[x, y] = [y, x - times * y]
  }
  return ((x % modulus) + modulus) % modulus
}

function bytesOf(value: bigint, size: number): Buffer {
  return Buffer.from(value.toString(16).padStart(size * 2, '0'), 'hex')
}
