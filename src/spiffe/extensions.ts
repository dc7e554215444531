/** The certificate extensions that SVIDs rest on (RFC 5280 s.4.2): read to values, each at most once. */
import { childrenOf, type Der, expectTag, malformed, oidHex, parseDer, smallInteger, TAG } from './der.ts'

/** What a certificate's extensions say. An absent member means that the extension is absent. */
export interface Extensions {
  readonly basicConstraints?: { readonly isCa: boolean; readonly pathLength: number | undefined }
  readonly keyUsage?: KeyUsage
  /** Purposes as OID hex. */
  readonly extKeyUsage?: ReadonlySet<string>
  /** The URI names of the subject alternative name. */
  readonly uris: readonly string[]
  /** Critical: an application that cannot read the names must refuse (RFC 5280 s.4.2.1.6). */
  readonly namesCritical: boolean
  readonly subjectKeyId?: Buffer
  readonly authorityKeyId?: Buffer
  /** OID hex of what a verifier would have to process and this one does not (RFC 5280 s.4.2). */
  readonly unprocessed: readonly string[]
}

export interface KeyUsage {
  readonly critical: boolean
  readonly digitalSignature: boolean
  readonly keyCertSign: boolean
  readonly crlSign: boolean
}

interface Extension {
  readonly id: string
  readonly critical: boolean
  /** What the OCTET STRING holds. */
  readonly content: Buffer
}

// OIDs by the hex of their content: 2.5.29.n.
const SUBJECT_KEY_ID = '551d0e'
const KEY_USAGE = '551d0f'
const SUBJECT_ALT_NAME = '551d11'
const BASIC_CONSTRAINTS = '551d13'
const NAME_CONSTRAINTS = '551d1e'
const AUTHORITY_KEY_ID = '551d23'
const EXT_KEY_USAGE = '551d25'
/** 1.3.6.1.5.5.7.3.1 and .2 */
export const SERVER_AUTH = '2b06010505070301'
export const CLIENT_AUTH = '2b06010505070302'

const EXTENSIONS_LIMIT = 64
const KEY_ID_LIMIT = 64

type Reader = (value: Der, critical: boolean) => Partial<Extensions>
const READERS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  [BASIC_CONSTRAINTS, readBasicConstraints],
  [KEY_USAGE, readKeyUsage],
  [EXT_KEY_USAGE, readExtKeyUsage],
  [SUBJECT_ALT_NAME, readNames],
  [SUBJECT_KEY_ID, (value) => ({ subjectKeyId: keyId(expectTag(value, TAG.octetString, 'key identifier')) })],
  [AUTHORITY_KEY_ID, readAuthorityKeyId],
])

/** Reads `Extensions ::= SEQUENCE OF Extension`; throws certificate_malformed. */
export function readExtensions(value: Der): Extensions {
  const list = childrenOf(value, TAG.sequence, 'list of extensions').map(readExtension)
  if (list.length === 0 || list.length > EXTENSIONS_LIMIT)
    throw malformed(`it has not 1 to ${EXTENSIONS_LIMIT} extensions`)
  if (new Set(list.map(({ id }) => id)).size !== list.length) throw malformed('it has an extension twice')
  const read = list.map(({ id, critical, content }) => {
    const reader = READERS.get(id)
    return reader ? reader(parseDer(content), critical) : {}
  })
  return Object.assign({ uris: [], namesCritical: false, unprocessed: list.flatMap(unprocessed) }, ...read)
}

/** Name constraints count without being critical too: RFC 5280 s.4.2.1.10 wants them so, and ignoring them widens. */
function unprocessed({ id, critical }: Extension): readonly string[] {
  return id === NAME_CONSTRAINTS || (critical && !READERS.has(id)) ? [id] : []
}

function readExtension(value: Der): Extension {
  const parts = childrenOf(value, TAG.sequence, 'extension')
  const critical = parts.length === 3
  if (critical) refuseDefault(expectTag(parts[1], TAG.boolean, 'critical mark'))
  else if (parts.length !== 2) throw malformed('an extension has not two or three parts')
  const { content } = expectTag(parts.at(-1), TAG.octetString, 'extension value')
  return { id: oidHex(parts[0], 'extension identifier'), critical, content }
}

/** X.690 s.11.5: a FALSE that is the default is left out. */
function refuseDefault(value: Der): void {
  if (value.content[0] === 0) throw malformed('a default value is written out')
}

function readBasicConstraints(value: Der): Partial<Extensions> {
  const parts = childrenOf(value, TAG.sequence, 'basicConstraints')
  const isCa = parts[0]?.tag === TAG.boolean
  if (isCa) refuseDefault(expectTag(parts[0], TAG.boolean, 'cA'))
  const [length, ...rest] = isCa ? parts.slice(1) : parts
  if (rest.length > 0 || (length && !isCa)) throw malformed('its basicConstraints has parts too many')
  return { basicConstraints: { isCa, pathLength: length && smallInteger(length, 'path length') } }
}

function readKeyUsage(value: Der, critical: boolean): Partial<Extensions> {
  const [unused = 0, first = 0, ...rest] = expectTag(value, TAG.bitString, 'keyUsage').content
  const last = rest.at(-1) ?? first
  // X.690 s.11.2.2: a list of named bits ends with a set one; RFC 5280 s.4.2.1.3: at least one is set.
  if (rest.length > 1 || ((last >> unused) & 1) === 0)
    throw malformed('its keyUsage is not in its one encoding')
  const has = (bit: number) => (first & (0x80 >> bit)) !== 0
  return { keyUsage: { critical, digitalSignature: has(0), keyCertSign: has(5), crlSign: has(6) } }
}

function readExtKeyUsage(value: Der): Partial<Extensions> {
  const purposes = childrenOf(value, TAG.sequence, 'extKeyUsage')
  if (purposes.length === 0) throw malformed('its extKeyUsage is empty')
  return { extKeyUsage: new Set(purposes.map((purpose) => oidHex(purpose, 'extKeyUsage'))) }
}

/** The tags of GeneralName (RFC 5280 s.4.2.1.6). */
const NAME = { email: 0x81, dns: 0x82, uri: 0x86, ip: 0x87, registered: 0x88 }
const CONSTRUCTED_NAMES: readonly number[] = [0xa0, 0xa3, 0xa4, 0xa5]
const IA5_NAMES: readonly number[] = [NAME.email, NAME.dns, NAME.uri]

function readNames(value: Der, critical: boolean): Partial<Extensions> {
  const names = childrenOf(value, TAG.sequence, 'subject alternative name')
  if (names.length === 0 || !names.every(isName)) throw malformed('its subject alternative name is malformed')
  const uris = names.filter(({ tag }) => tag === NAME.uri).map(({ content }) => content.toString('latin1'))
  return { uris, namesCritical: critical }
}

function isName({ tag, content }: Der): boolean {
  if (IA5_NAMES.includes(tag)) return content.every((byte) => byte < 0x80)
  if (tag === NAME.ip) return content.length === 4 || content.length === 16
  return tag === NAME.registered || CONSTRUCTED_NAMES.includes(tag)
}

const KEY_ID_TAG = 0x80
const ISSUER_TAGS: readonly number[] = [0xa1, 0x82]

function readAuthorityKeyId(value: Der): Partial<Extensions> {
  const parts = childrenOf(value, TAG.sequence, 'authority key identifier')
  const [first] = parts
  const rest = first?.tag === KEY_ID_TAG ? parts.slice(1) : parts
  if (rest.length > 0 && !(rest.length === 2 && rest.every(({ tag }, index) => tag === ISSUER_TAGS[index])))
    throw malformed('its authority key identifier is malformed')
  return first?.tag === KEY_ID_TAG ? { authorityKeyId: keyId(first) } : {}
}

function keyId({ content }: Der): Buffer {
  if (content.length === 0 || content.length > KEY_ID_LIMIT)
    throw malformed('a key identifier is out of bounds')
  return content
}
