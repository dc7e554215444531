/** A key of the lab: thrown away when the run ends. Unlike the agent's it signs whatever a case makes up. */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { signJws } from '../keys/signer.ts'
import { type PublicJwk, publicJwkOf, thumbprint } from '../spiffe/jwk.ts'

export interface LabKey {
  readonly publicJwk: PublicJwk
  readonly jkt: string
  /** A compact JWS; `alg: none` in the header leaves the signature empty. */
  sign(header: object, claims: object): string
}

export function makeLabKey(): LabKey {
  return labKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
}

/** The key in a private JWK or PEM file that a token is bound to; throws usage, which shows nothing of it. */
export function readLabKey(file: string, text: string): LabKey {
  const key = parsed(text)
  if (key?.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1')
    return labKey(key)
  throw new Fault('usage', `${file}: holds no private P-256 key`, {
    action: 'Put the EC key (P-256) of the token into the file, as JWK or as PEM (PKCS#8).',
  })
}

function parsed(text: string): KeyObject | undefined {
  try {
    return text.trimStart().startsWith('{')
      ? createPrivateKey({ key: JSON.parse(text), format: 'jwk' })
      : createPrivateKey(text)
  } catch {
    return undefined
  }
}

function labKey(key: KeyObject): LabKey {
  const publicJwk = publicJwkOf(key)
  return {
    publicJwk,
    jkt: thumbprint(publicJwk),
    sign: (header, claims) => {
      const input = `${encoded(header)}.${encoded(claims)}`
      if ('alg' in header && header.alg === 'none') return `${input}.`
      return `${input}.${signJws(Buffer.from(input, 'latin1'), key, 'ES256').toString('base64url')}`
    },
  }
}

function encoded(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}

const SCALAR_BYTES = 32

/** A `jwk` that seems to show its private half: the half of another key, so that none is ever sent. */
export function withPrivateHalf(jwk: PublicJwk): object {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { d = Buffer.alloc(SCALAR_BYTES, 1).toString('base64url') } = privateKey.export({ format: 'jwk' })
  return { ...jwk, d }
}
