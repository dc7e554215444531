/** HTTP message signatures (RFC 9421): the signature base of a message, signed with a held key. */
import { Fault } from '../base/fault.ts'
import { type Component, componentValue, identifierOf } from './components.ts'
import type { SignedMessage } from './http-message.ts'
import type { Signer } from './signer.ts'
import type { Bare, Parameters } from './structured-fields.ts'
import { memberText } from './structured-text.ts'

/** The values of the two fields that carry a signature (s.4). */
export interface SignatureFields {
  readonly input: string
  readonly signature: string
}

/** What a signature says of itself (s.2.3), in the order it is written. */
export type SignatureParameters = Readonly<Record<string, string | number>>

export interface SignatureWish {
  readonly label: string
  readonly components: readonly Component[]
  readonly parameters: SignatureParameters
}

const LABEL = /^[a-z*][a-z0-9_.*-]{0,63}$/
const STRING = /^[ -~]{0,8192}$/

/** Signs `message`; throws key_lost, and proof_malformed for a component that it does not have. */
export function makeSignature(
  signer: Pick<Signer, 'sign'>,
  message: SignedMessage,
  { label, components, parameters }: SignatureWish,
): SignatureFields {
  if (!LABEL.test(label)) throw new Fault('bug', 'the label of a signature is no key')
  const typed = new Map(Object.entries(parameters).map(([name, value]) => [name, bareOf(name, value)]))
  const base = signatureBase(message, components, typed)
  const signature = signer.sign(Buffer.from(base, 'latin1')).toString('base64')
  return { input: `${label}=${inputText(components, typed)}`, signature: `${label}=:${signature}:` }
}

function bareOf(name: string, value: string | number): Bare {
  if (typeof value === 'number') return { type: 'integer', value }
  if (!STRING.test(value))
    throw new Fault('invalid_request', `${name} of the signature is not printable ASCII`)
  return { type: 'string', value }
}

/** The bytes that are signed (s.2.5); throws proof_malformed. */
export function signatureBase(
  message: SignedMessage,
  components: readonly Component[],
  parameters: Parameters,
): string {
  const lines = components.map((each) => `${identifierOf(each)}: ${componentValue(message, each)}\n`)
  return `${lines.join('')}"@signature-params": ${inputText(components, parameters)}`
}

function inputText(components: readonly Component[], parameters: Parameters): string {
  const items = components.map((each) => ({
    bare: { type: 'string', value: each.name } as const,
    parameters: each.parameters,
  }))
  return memberText({ items, parameters })
}
