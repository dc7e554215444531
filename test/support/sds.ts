/** SDS as Envoy speaks it, message by message, and what is in the secrets. */
import { X509Certificate } from 'node:crypto'
import protobuf from 'protobufjs/light.js'
import descriptor from '../../src/serve/descriptor.json' with { type: 'json' }
import { type Message, type RawClient, type RawStream, SECURITY } from './raw-client.ts'

export const SDS = 'envoy.service.secret.v3.SecretDiscoveryService'
export const SECRET_TYPE = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret'

const root = protobuf.Root.fromJSON(descriptor as protobuf.INamespace)
const typeOf = (name: string) => root.lookupType(`envoy.service.secret.v3.${name}`)

/** A secret as a test reads it. */
export interface ReadSecret {
  readonly name: string
  /** URI SANs of the chain's first certificate. */
  readonly spiffeId?: string
  readonly chain?: readonly X509Certificate[]
  readonly key?: string
  /** Trust domains of a SPIFFE validator, with how many CAs each has, in the order sent. */
  readonly trustDomains?: Readonly<Record<string, number>>
  /** How many CAs a plain pool has. */
  readonly pool?: number
}

/** The secrets in a response of either form. */
export function secretsIn(response: Message): readonly ReadSecret[] {
  const resources = response.resources ?? []
  return resources.map((resource: Message) => readSecret(resource.resource ?? resource))
}

function readSecret({ type_url, value }: { type_url: string; value: Buffer }): ReadSecret {
  if (type_url !== SECRET_TYPE) throw new Error(`not a secret: ${type_url}`)
  const secret = decode('Secret', value)
  const { name, tls_certificate: tls, validation_context: context } = secret
  if (tls) {
    const chain = certificatesIn(tls.certificate_chain.inline_bytes)
    const spiffeId = chain[0]?.subjectAltName?.split('URI:')[1]?.split(',')[0] ?? ''
    return { name, chain, spiffeId, key: tls.private_key.inline_bytes.toString('latin1') }
  }
  if (context.trusted_ca) return { name, pool: certificatesIn(context.trusted_ca.inline_bytes).length }
  const { trust_domains } = decode(
    'SPIFFECertValidatorConfig',
    context.custom_validator_config.typed_config.value,
  )
  const counts = trust_domains.map((each: Message) => [
    each.name,
    certificatesIn(each.trust_bundle.inline_bytes).length,
  ])
  return { name, trustDomains: Object.fromEntries(counts) }
}

function decode(type: string, bytes: Buffer): Message {
  const found = typeOf(type)
  return found.toObject(found.decode(bytes), { defaults: false })
}

function certificatesIn(pem: Buffer): readonly X509Certificate[] {
  const blocks = pem.toString('latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g)
  return (blocks ?? []).map((block) => new X509Certificate(block))
}

/** An open stream that acknowledges like Envoy when it is told to. */
export interface SdsStream extends RawStream {
  /** Asks for these names, with the nonce of the newest response. */
  ask(...names: readonly string[]): void
  /** Says that the newest response is taken, or why not. */
  ack(error?: string): void
}

/** Opens StreamSecrets and asks; Envoy sends no security header. */
export function openSds(client: RawClient, names: readonly string[], node?: object): SdsStream {
  const stream = client.open(`${SDS}/StreamSecrets`, undefined, [])
  let asked = names
  const send = (more: object) => {
    const { nonce = '' } = stream.messages.at(-1) ?? {}
    stream.send({ resource_names: asked, type_url: SECRET_TYPE, response_nonce: nonce, ...more })
  }
  send({ node: node ?? {}, version_info: '' })
  return Object.assign(stream, {
    ask: (...next: readonly string[]) => {
      asked = next
      send({})
    },
    ack: (error?: string) => {
      const { version_info } = stream.messages.at(-1) ?? {}
      if (error === undefined) send({ version_info })
      else send({ error_detail: { code: 13, message: error } })
    },
  })
}

/** FetchSecrets: one answer, or how it was refused. */
export function fetchSecrets(client: RawClient, names: readonly string[], header = false): Promise<Message> {
  const request = { resource_names: names, type_url: SECRET_TYPE }
  return client.unary(`${SDS}/FetchSecrets`, request, header ? SECURITY : [])
}
