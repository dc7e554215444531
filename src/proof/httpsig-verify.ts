/**
 * Checks of HTTP message signatures (RFC 9421 s.3.2). What has to be covered is the verifier's to say (s.7.2.1): a
 * valid signature over nothing proves nothing of the message.
 */
import { type KeyObject, verify } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type JwsAlg, verifyBytes } from '../spiffe/jws.ts'
import { type Component, componentOf, hasField, identifierOf } from './components.ts'
import { fieldValues, type RawFields, type SignedMessage } from './http-message.ts'
import { signatureBase } from './httpsig.ts'
import { type Bare, type Member, type Parameters, parseDictionary } from './structured-fields.ts'

/** A signature as received. Nothing in it may be believed before `verifySignature`. */
export interface ReceivedSignature {
  readonly label: string
  readonly components: readonly Component[]
  readonly parameters: Parameters
  readonly signature: Buffer
}

/** Which signature of a message is meant: the only one of that tag (s.7.2.7), or the one of that label. */
export type SignatureChoice = { readonly tag: string } | { readonly label: string }

/** What a verifier demands. */
export interface SignatureRules {
  /** Identifiers, as identifierOf writes them, that must be covered. */
  readonly covers: readonly string[]
  /** Fields that must be covered when the message has them. */
  readonly coversPresent: readonly string[]
  /** Parameters that must be there. */
  readonly requires: readonly string[]
  /** Parameters that must not. */
  readonly refuses: readonly string[]
  /** The oldest `created`, and the longest time from it to `expires`. */
  readonly maxAge: Seconds
  /** How far clocks may differ. */
  readonly skew: Seconds
}

/** The key of the signer and the one algorithm it signs with, known from elsewhere (s.7.3.6): never from the message. */
export interface SignatureKey {
  readonly key: KeyObject
  readonly alg: JwsAlg | 'EdDSA'
}

const TEXTS: ReadonlySet<string> = new Set(['nonce', 'alg', 'keyid', 'tag'])
const TIMES: ReadonlySet<string> = new Set(['created', 'expires'])

/** The signature that `choice` means; throws proof_missing, proof_repeated, proof_malformed. */
export function readSignature({ headers }: SignedMessage, choice: SignatureChoice): ReceivedSignature {
  const inputs = dictionaryIn(headers, 'signature-input')
  const signatures = dictionaryIn(headers, 'signature')
  const chosen = [...inputs].filter(([label, member]) =>
    'tag' in choice ? isTagged(member, choice.tag) : label === choice.label,
  )
  const [first, ...others] = chosen
  if (!first) throw new Fault('proof_missing', 'the message has no signature of the kind that is wanted')
  if (others.length > 0) throw new Fault('proof_repeated', 'several signatures have the tag that is wanted')
  const [label, member] = first
  const value = signatures.get(label)
  if (!value || !('bare' in value) || value.bare.type !== 'bytes')
    throw malformed('Signature has no bytes under the label of Signature-Input')
  return { label, ...coverageOf(member), signature: value.bare.value }
}

function dictionaryIn(headers: RawFields, name: string): ReadonlyMap<string, Member> {
  const values = fieldValues(headers, name)
  if (values.length === 0) throw new Fault('proof_missing', `the message has no ${name}`)
  const dictionary = parseDictionary(values.join(', '))
  if (!dictionary) throw malformed(`${name} is no dictionary`)
  return dictionary
}

function isTagged({ parameters }: Member, tag: string): boolean {
  const bare = parameters.get('tag')
  return bare?.type === 'string' && bare.value === tag
}

function coverageOf(member: Member): Pick<ReceivedSignature, 'components' | 'parameters'> {
  if (!('items' in member)) throw malformed('Signature-Input has no list of components')
  const components = member.items.map(componentOf)
  if (new Set(components.map(unordered)).size !== components.length)
    throw malformed('a component is covered twice')
  for (const [name, bare] of member.parameters)
    if (!isFormed(name, bare)) throw malformed(`${name} of the signature is not of its type`)
  return { components, parameters: member.parameters }
}

/** s.2: the order of parameters makes no other identifier. */
function unordered({ name, parameters }: Component): string {
  return identifierOf({ name, parameters: new Map([...parameters].sort(([a], [b]) => (a < b ? -1 : 1))) })
}

function isFormed(name: string, { type, value }: Bare): boolean {
  if (TIMES.has(name)) return type === 'integer' && Number(value) >= 0
  return !TEXTS.has(name) || type === 'string'
}

/**
 * Checks `received` against `message`: coverage, parameters, time, signature, in this order. Throws proof_coverage,
 * proof_malformed, proof_time, proof_forged. Whether a nonce was seen before is the caller's to check.
 */
export function verifySignature(
  message: SignedMessage,
  received: ReceivedSignature,
  rules: SignatureRules,
  { key, alg }: SignatureKey,
  now: Seconds,
): void {
  const { components, parameters, signature } = received
  checkCoverage(message, components, rules)
  checkParameters(parameters, rules)
  checkTimes(parameters, rules, now)
  const named = parameters.get('alg')?.value
  if (named !== undefined && named !== NAMES.get(alg))
    throw malformed('alg of the signature is not the algorithm of its key')
  const base = Buffer.from(signatureBase(message, components, parameters), 'latin1')
  if (!isSigned(base, signature, key, alg)) throw new Fault('proof_forged')
}

function checkCoverage(
  message: SignedMessage,
  components: readonly Component[],
  rules: SignatureRules,
): void {
  const covered = new Set(components.map(identifierOf))
  const present = rules.coversPresent.filter((name) => hasField(message, name)).map((name) => `"${name}"`)
  const missing = [...rules.covers, ...present].find((identifier) => !covered.has(identifier))
  if (missing) throw new Fault('proof_coverage', `the signature does not cover ${missing}`)
}

function checkParameters(parameters: Parameters, { requires, refuses }: SignatureRules): void {
  const missing = requires.find((name) => !parameters.has(name))
  if (missing) throw malformed(`the signature has no ${missing}`)
  const foreign = refuses.find((name) => parameters.has(name))
  if (foreign) throw malformed(`the signature has ${foreign}, which it must not have`)
}

function checkTimes(parameters: Parameters, { maxAge, skew }: SignatureRules, now: Seconds): void {
  const created = timeOf(parameters, 'created')
  const expires = timeOf(parameters, 'expires')
  if (created !== undefined && created > now + skew)
    throw new Fault('proof_time', 'the signature was made in the future')
  if (created !== undefined && created + maxAge < now - skew)
    throw new Fault('proof_time', 'the signature is too old')
  if (expires !== undefined && expires < now - skew)
    throw new Fault('proof_time', 'the signature has expired')
  if (created !== undefined && expires !== undefined && (expires < created || expires > created + maxAge))
    throw new Fault('proof_time', 'the signature lives longer than it may, or ends before it begins')
}

function timeOf(parameters: Parameters, name: string): Seconds | undefined {
  const value = parameters.get(name)?.value
  return typeof value === 'number' ? value : undefined
}

/** The names of s.3.3; the other JWS algorithms have none and are never named in a signature (s.3.3.7). */
const NAMES: ReadonlyMap<SignatureKey['alg'], string> = new Map<SignatureKey['alg'], string>([
  ['ES256', 'ecdsa-p256-sha256'],
  ['ES384', 'ecdsa-p384-sha384'],
  ['EdDSA', 'ed25519'],
  ['PS512', 'rsa-pss-sha512'],
  ['RS256', 'rsa-v1_5-sha256'],
])

function isSigned(base: Buffer, signature: Buffer, key: KeyObject, alg: SignatureKey['alg']): boolean {
  if (alg !== 'EdDSA') return verifyBytes(base, signature, key, alg)
  return key.asymmetricKeyType === 'ed25519' && verify(null, base, key, signature)
}

function malformed(message: string): Fault {
  return new Fault('proof_malformed', message)
}
