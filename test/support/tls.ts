/** Certificates of TLS servers and clients that are valid now, below a CA of the test's own, and their files. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'
import {
  altNames,
  dnsName,
  ecPair,
  makeAuthority,
  makeLeaf,
  type Pair,
  type TestAuthority,
  uriName,
  validity,
} from './certificates.ts'
import { tlv } from './der.ts'
import { pem } from './openssl.ts'

export interface Names {
  readonly dns?: string
  readonly uri?: string
  readonly ip?: string
}

export interface TestCa {
  readonly authority: TestAuthority
  /** The CA's certificate. */
  readonly pem: string
  /** A certificate of these names over that public key, in DER. */
  certify(spki: Buffer, names: Names, days?: readonly [from: number, to: number]): Buffer
  /** `cert` and `key` of a server that is `localhost` and 127.0.0.1, or what `names` say. */
  serverFiles(names?: Names): { readonly cert: string; readonly key: string }
}

const DAY = 86_400

/** A CA that is valid from yesterday until tomorrow. */
export function makeTestCa(commonName = 'test ca'): TestCa {
  const now = Math.floor(Date.now() / 1000)
  const span = (from = -1, to = 1) => validity(now + from * DAY, now + to * DAY)
  const authority = makeAuthority({ commonName, validity: span() })
  const certify: TestCa['certify'] = (spki, names, days) =>
    leafOf(
      authority,
      createPublicKey({ key: spki, format: 'der', type: 'spki' }),
      names,
      span(...(days ?? [])),
    )
  return {
    authority,
    pem: pem(authority.der),
    certify,
    serverFiles: (names = { dns: 'localhost', ip: '127.0.0.1' }) => {
      const pair = ecPair()
      const spki = pair.publicKey.export({ format: 'der', type: 'spki' })
      return {
        cert: pem(certify(spki, names)),
        key: String(pair.privateKey.export({ format: 'pem', type: 'pkcs8' })),
      }
    },
  }
}

function leafOf(authority: TestAuthority, publicKey: KeyObject, names: Names, span: Buffer): Buffer {
  const san = altNames(
    ...(names.dns === undefined ? [] : [dnsName(names.dns)]),
    ...(names.uri === undefined ? [] : [uriName(names.uri)]),
    ...(names.ip === undefined ? [] : [tlv(0x87, addressBytes(names.ip))]),
  )
  const pair = { publicKey } as Pair
  return makeLeaf(authority, { pair, validity: span }, { altNames: san })
}

function addressBytes(ip: string): Buffer {
  return isIP(ip) === 4
    ? Buffer.from(ip.split('.').map(Number))
    : Buffer.from('00000000000000000000000000000001', 'hex')
}
