/** The certificates of a cluster: one CA, its servers, and its clients with their groups. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  altNames,
  CLIENT_AUTH,
  dnsName,
  ecPair,
  extKeyUsage,
  makeAuthority,
  makeLeaf,
  name,
  SERVER_AUTH,
  validity,
} from '../certificates.ts'
import { integer, oid, sequence, set, tlv } from '../der.ts'
import { pem } from '../openssl.ts'

/** A certificate and its key, as files. */
export interface KeyFiles {
  readonly cert: string
  readonly key: string
}

export interface Pki {
  /** The CA's certificate: a file, and its text. */
  readonly caFile: string
  readonly ca: string
  /** A server with these names and addresses. */
  server(file: string, names: readonly string[], ips: readonly string[]): KeyFiles
  /** A client: a user, and the group it is in. */
  client(file: string, user: string, group: string): KeyFiles
  /** The key that service account tokens are signed with. */
  readonly tokens: { readonly key: string; readonly publicKey: string }
}

const DAY = 86_400

/** Makes it below `dir`. */
export function makePki(dir: string): Pki {
  mkdirSync(dir, { mode: 0o700 })
  const now = Math.floor(Date.now() / 1000)
  const span = validity(now - DAY, now + DAY)
  const authority = makeAuthority({ commonName: 'cluster', validity: span })
  const write = (file: string, text: string) => {
    writeFileSync(join(dir, file), text, { mode: 0o600 })
    return join(dir, file)
  }
  const leaf = (file: string, subject: Buffer, change: Parameters<typeof makeLeaf>[2]): KeyFiles => {
    const pair = ecPair()
    const serial = integer(`01${randomBytes(8).toString('hex')}`)
    const der = makeLeaf(authority, { pair, validity: span, subject, serial }, change)
    const key = pair.privateKey.export({ format: 'pem', type: 'pkcs8' })
    return { cert: write(`${file}.crt`, pem(der)), key: write(`${file}.key`, String(key)) }
  }
  const signer = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return {
    ca: pem(authority.der),
    caFile: write('ca.crt', pem(authority.der)),
    server: (file, names, ips) =>
      leaf(file, name(names[0] ?? file), {
        altNames: altNames(...names.map(dnsName), ...ips.map(ipName)),
        extKeyUsage: extKeyUsage(SERVER_AUTH),
      }),
    client: (file, user, group) =>
      leaf(file, userName(user, group), { altNames: undefined, extKeyUsage: extKeyUsage(CLIENT_AUTH) }),
    tokens: {
      key: write('tokens.key', String(signer.privateKey.export({ format: 'pem', type: 'pkcs8' }))),
      publicKey: write('tokens.pub', String(signer.publicKey.export({ format: 'pem', type: 'spki' }))),
    },
  }
}

const ipName = (ip: string) => tlv(0x87, Buffer.from(ip.split('.').map(Number)))

/** O and CN: the group and the user, as Kubernetes reads them. */
function userName(user: string, group: string): Buffer {
  const part = (type: string, text: string) => set(sequence(oid(type), tlv(0x0c, Buffer.from(text))))
  return sequence(part('55040a', group), part('550403', user))
}
