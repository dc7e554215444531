/** X.509 certificates from outside, read to typed values (RFC 5280 s.4.1). Nothing here says that one may be trusted. */
import type { Seconds } from '../base/clock.ts'
import { childrenOf, type Der, expectTag, malformed, parseDer, smallInteger, TAG, wholeBits } from './der.ts'
import { type Extensions, readExtensions } from './extensions.ts'

/** One certificate; its buffers are windows into one private copy of the input. */
export interface Certificate {
  readonly der: Buffer
  /** What the issuer signed. */
  readonly tbs: Buffer
  readonly signatureAlgorithm: Der
  readonly signature: Buffer
  /** Distinguished names as they stand, compared byte by byte. */
  readonly issuer: Buffer
  readonly subject: Buffer
  readonly notBefore: Seconds
  /** The last second of its validity. */
  readonly notAfter: Seconds
  /** SubjectPublicKeyInfo. */
  readonly spki: Der
  readonly extensions: Extensions
}

const VERSION_TAG = 0xa0
const EXTENSIONS_TAG = 0xa3
const VERSION_3 = 2
const SERIAL_LIMIT = 20
const PARTS_OF_TBS = 8

/** The certificate in `der`, version 3 with extensions, as every SVID is; throws certificate_malformed. */
export function parseCertificate(der: Uint8Array): Certificate {
  const whole = parseDer(Buffer.from(der))
  const [tbs, algorithm, signature, ...rest] = childrenOf(whole, TAG.sequence, 'outer sequence')
  const body = childrenOf(tbs, TAG.sequence, 'signed part')
  if (rest.length > 0 || body.length !== PARTS_OF_TBS) throw malformed('it has not the parts of version 3')
  const signatureAlgorithm = expectTag(algorithm, TAG.sequence, 'signature algorithm')
  // RFC 5280 s.4.1.1.2: the outer identifier is unsigned and must repeat the inner one.
  if (!body[2]?.bytes.equals(signatureAlgorithm.bytes)) throw malformed('its two signature algorithms differ')
  return {
    der: whole.bytes,
    tbs: expectTag(tbs, TAG.sequence, 'signed part').bytes,
    signatureAlgorithm,
    signature: wholeBits(signature, 'signature'),
    ...readBody(body),
  }
}

function readBody(body: readonly Der[]) {
  const [version, serial, , issuer, validity, subject, spki, extensions] = body
  if (smallInteger(onlyChild(version, VERSION_TAG, 'version'), 'version') !== VERSION_3)
    throw malformed('it is not of version 3')
  checkSerial(expectTag(serial, TAG.integer, 'serial number').content)
  const [notBefore, notAfter, ...rest] = childrenOf(validity, TAG.sequence, 'validity')
  if (rest.length > 0) throw malformed('its validity has parts too many')
  return {
    issuer: readName(issuer, 'issuer'),
    subject: readName(subject, 'subject'),
    notBefore: readTime(notBefore),
    notAfter: readTime(notAfter),
    spki: expectTag(spki, TAG.sequence, 'public key'),
    extensions: readExtensions(onlyChild(extensions, EXTENSIONS_TAG, 'extensions')),
  }
}

function onlyChild(value: Der | undefined, tag: number, what: string): Der {
  const [child, ...rest] = childrenOf(value, tag, what)
  if (!child || rest.length > 0) throw malformed(`its ${what} is not one value`)
  return child
}

/** RFC 5280 s.4.1.2.2; zero is tolerated, as old roots have it. */
function checkSerial(content: Buffer): void {
  if (content.length > SERIAL_LIMIT || (content[0] ?? 0) >= 0x80)
    throw malformed('its serial number is out of bounds')
}

/** A Name is a SEQUENCE of SETs of type-and-value pairs; the pairs are not interpreted. */
function readName(value: Der | undefined, what: string): Buffer {
  for (const set of childrenOf(value, TAG.sequence, what)) {
    const pairs = childrenOf(set, TAG.set, what)
    if (pairs.length === 0) throw malformed(`its ${what} has an empty part`)
    for (const pair of pairs) {
      const [type, ...values] = childrenOf(pair, TAG.sequence, what)
      expectTag(type, TAG.oid, what)
      if (values.length !== 1) throw malformed(`its ${what} has a part without one value`)
    }
  }
  return expectTag(value, TAG.sequence, what).bytes
}

const UTC_TIME = /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
const GENERALIZED_TIME = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
/** RFC 5280 s.4.1.2.5: UTCTime through 2049, GeneralizedTime from then on. */
const LAST_UTC_YEAR = 2049

/** Seconds since 1970; to the second, in UTC, and a date that the calendar has. */
function readTime(value: Der | undefined): Seconds {
  const isUtc = value?.tag === TAG.utcTime
  const form = isUtc ? UTC_TIME : GENERALIZED_TIME
  const { content } = expectTag(value, isUtc ? TAG.utcTime : TAG.generalizedTime, 'validity')
  const [digits, ...parts] = form.exec(content.toString('latin1')) ?? []
  if (digits === undefined) throw malformed('a time is not in its one encoding')
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts.map(Number)
  const full = isUtc ? year + (year < 50 ? 2000 : 1900) : year
  if (!isUtc && full <= LAST_UTC_YEAR) throw malformed('a time before 2050 is not a UTCTime')
  const at = Date.UTC(full, month - 1, day, hour, minute, second)
  // An hour 24 or a 31 February would be carried over.
  const text = new Date(at).toISOString().replace(/\D/g, '').slice(0, 14)
  if (!text.endsWith(digits.slice(0, -1))) throw malformed('a time is not a date')
  return at / 1000
}
