/** A Fault as a gRPC status: its code, its words, and details that clients of every language read. */
import type { Fault } from '../base/fault.ts'
import { encoderOf } from './messages.ts'
import { STATUS } from './status.ts'

/** `google.rpc.Status` with `ErrorInfo`: the value of `grpc-status-details-bin`. */
export type EncodeFault = (fault: Fault) => Buffer

/** Makes the encoder; codecs are written when one is first used. */
export function faultEncoder(): EncodeFault {
  const [encodeStatus, encodeInfo] = [encoderOf('google.rpc.Status'), encoderOf('google.rpc.ErrorInfo')]
  return (fault) => {
    const { reason, action, owner, docs } = fault.toJSON()
    const value = encodeInfo({ reason, domain: 'holdfast.dev', metadata: { action, owner, docs } })
    const detail = { type_url: 'type.googleapis.com/google.rpc.ErrorInfo', value }
    return encodeStatus({ code: STATUS[reason].grpc, message: fault.message, details: [detail] })
  }
}

/** The fields that end a call (grpc/doc/PROTOCOL-HTTP2.md, Responses). */
export function statusFields(fault: Fault, encode: EncodeFault): readonly (readonly [string, string])[] {
  return [
    ['grpc-status', String(STATUS[fault.reason].grpc)],
    ['grpc-message', percentEncoded(fault.message)],
    ['grpc-status-details-bin', encode(fault).toString('base64').replace(/=+$/, '')],
  ]
}

/** Text as `grpc-message` holds it (grpc/doc/PROTOCOL-HTTP2.md, Status-Message). */
export function percentEncoded(text: string): string {
  // Half a surrogate pair has no UTF-8.
  const whole = Buffer.from(text).toString()
  return whole.replace(/[^ -$&-~]+/gu, encodeURIComponent)
}
