/** The certificate of a caller as a hop hands it on: `Client-Cert` (RFC 9440) or Envoy's XFCC. Parsed strictly: both can be forged by whoever may set headers, so they are read of named hops only. */
import { X509Certificate } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { only, type RawHeaders } from './inbound.ts'

const FIELD_LIMIT = 32 * 1024
/** A structured-field byte sequence (RFC 8941 s.3.3.5), and nothing beside it. */
const BYTES = /^:([A-Za-z0-9+/]+={0,2}):$/

/** The certificate in DER; undefined when the hop says nothing. Throws proof_repeated, hop_unexpected. */
export function forwardedCertificate(headers: RawHeaders, form: 'client_cert' | 'xfcc'): Buffer | undefined {
  const text = only(headers, form === 'xfcc' ? 'x-forwarded-client-cert' : 'client-cert')
  if (text === undefined || text === '') return undefined
  if (text.length > FIELD_LIMIT) throw broken('is too long')
  return form === 'xfcc' ? inXfcc(text) : inClientCert(text)
}

function inClientCert(text: string): Buffer {
  const encoded = BYTES.exec(text)?.[1]
  const bytes = Buffer.from(encoded ?? '', 'base64')
  if (encoded === undefined || bytes.toString('base64') !== encoded) throw broken('is no byte sequence')
  return certificateIn(bytes)
}

/** Only the last element is the hop's own word: those before it came with the request (facts: Istio appends). */
function inXfcc(text: string): Buffer {
  const last = split(text, ',').at(-1) ?? ''
  const certificates = split(last, ';')
    .map((pair) => /^cert=(.*)$/is.exec(pair.trim())?.[1])
    .filter((value) => value !== undefined)
  const [value] = certificates
  if (value === undefined || certificates.length > 1) throw broken('has not one Cert in its last element')
  try {
    return certificateIn(decodeURIComponent(value.replace(/^"(.*)"$/s, '$1')))
  } catch (error) {
    throw error instanceof Fault ? error : broken('has a Cert that cannot be decoded')
  }
}

/** Splits outside of double quotes, in which a backslash escapes. */
function split(text: string, separator: string): readonly string[] {
  const parts: string[] = []
  let [start, isQuoted] = [0, false]
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (isQuoted && char === '\\') at += 1
    else if (char === '"') isQuoted = !isQuoted
    else if (char === separator && !isQuoted) {
      parts.push(text.slice(start, at))
      start = at + 1
    }
  }
  if (isQuoted) throw broken('has a quote that never ends')
  return [...parts, text.slice(start)]
}

function certificateIn(bytes: Buffer | string): Buffer {
  try {
    return new X509Certificate(bytes).raw
  } catch {
    throw broken('holds no certificate')
  }
}

function broken(what: string): Fault {
  return new Fault('hop_unexpected', `the certificate that the hop hands on ${what}`)
}
