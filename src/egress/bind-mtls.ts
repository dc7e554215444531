/** The certificate of the connection as binding (RFC 8705 s.3): the request itself carries only the token. */
import { Fault } from '../base/fault.ts'
import type { BindAsk, Part } from './bound.ts'
import type { Certificate } from './certificates.ts'

/** Nothing is added; what is bound is of use until the certificate ends. */
export function bindMtls(ask: BindAsk): Part {
  const { expires, signer, x5t } = certificateFor(ask)
  return { headers: [], expires, jkt: signer.jkt, jti: undefined, x5t }
}

/** The certificate that the connection of this request shows. */
export function certificateFor({ certificate, target }: BindAsk): Certificate {
  if (certificate) return certificate
  throw new Fault(
    'custody_denied',
    `requests to ${target.name} are bound by a certificate: headers alone are of no use`,
    {
      action: 'Use the egress door, which makes the connection.',
    },
  )
}
