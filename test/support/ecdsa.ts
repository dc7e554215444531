/** The second signature that ECDSA takes for one text: whoever sees (r, s) can make (r, n - s), with no key. */

/** The order of P-256 (SEC 2 s.2.4.2). */
const ORDER = BigInt('0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')
const SCALAR_BYTES = 32

/** The same compact JWS (ES256) with its other signature. */
export function otherSignature(jws: string): string {
  const at = jws.lastIndexOf('.') + 1
  const signature = Buffer.from(jws.slice(at), 'base64url')
  const s = ORDER - BigInt(`0x${signature.subarray(SCALAR_BYTES).toString('hex')}`)
  const other = Buffer.from(s.toString(16).padStart(2 * SCALAR_BYTES, '0'), 'hex')
  return jws.slice(0, at) + Buffer.concat([signature.subarray(0, SCALAR_BYTES), other]).toString('base64url')
}
