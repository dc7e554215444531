/** Bodies that Envoy shows to the verifier: those of signed requests are what was signed, or nothing gets through. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import type { Binding } from '../../../src/ingress/binding.ts'
import { extAuthzHandlers } from '../../../src/ingress/ext-authz.ts'
import type { Question } from '../../../src/ingress/question.ts'
import { checkShownBody } from '../../../src/ingress/signed-body.ts'
import type { Verifier } from '../../../src/ingress/verifier.ts'
import { digestOf } from '../../../src/proof/content-digest.ts'

const BODY = Buffer.from('hello')
const signed = (contentDigest?: string): Binding => ({
  kind: 'http-signature',
  jkt: undefined,
  x5t: undefined,
  spiffeId: undefined,
  proof: undefined,
  contentDigest,
})

function reasonOf(binding: Binding, whole: Uint8Array | undefined, isRequired = false): string {
  try {
    checkShownBody(binding, { whole, hasOctets: whole !== undefined && whole.length > 0, isRequired })
    return 'ok'
  } catch (error) {
    return Fault.from(error).reason
  }
}

describe('a signed request', () => {
  it.each([
    ['with the body that was signed', signed(digestOf(BODY)), BODY, 'ok'],
    ['with another body', signed(digestOf(BODY)), Buffer.from('hullo'), 'digest_mismatch'],
    ['without its body', signed(digestOf(BODY)), Buffer.alloc(0), 'digest_mismatch'],
    ['with a digest that is none', signed('sha-256=hello'), BODY, 'digest_mismatch'],
    ['with a body that nothing signs', signed(), BODY, 'proof_coverage'],
    ['without any body', signed(), Buffer.alloc(0), 'ok'],
    ['of another binding', { ...signed(), kind: 'dpop' } as Binding, BODY, 'ok'],
  ])('%s', (_what, binding, body, reason) => {
    expect([reasonOf(binding, body), reasonOf(binding, body, true)]).toEqual([reason, reason])
  })

  it('whose body is not shown is refused where that is required', () => {
    const binding = signed(digestOf(BODY))
    expect([reasonOf(binding, undefined), reasonOf(binding, undefined, true)]).toEqual([
      'ok',
      'digest_required',
    ])
    expect(reasonOf(signed(), undefined, true)).toBe('ok')
  })

  it('of whose body a part is seen that nothing signs is refused, whatever is required', () => {
    const part = (isRequired: boolean) => () =>
      checkShownBody(signed(), { whole: undefined, hasOctets: true, isRequired })
    expect(part(true)).toThrow(expect.objectContaining({ reason: 'proof_coverage' }))
    expect(part(false)).toThrow(expect.objectContaining({ reason: 'proof_coverage' }))
  })
})

describe('what Envoy shows', () => {
  const shown = async (http: object, extensions: object = {}) => {
    let asked: Question | undefined
    const ask = (_asker: unknown, question: Question) => {
      asked = question
      throw new Fault('verifier_foreign')
    }
    const read = async (_asker: unknown, make: () => Question) => make()
    const workload = () => ({ peer: { pid: 1, uid: 1 }, selectors: [], entries: () => [] })
    const { unary } = extAuthzHandlers({ ask, read } as unknown as Verifier)['Check'] as unknown as {
      unary: (caller: object, request: object) => Promise<unknown>
    }
    const request = { http: { method: 'POST', path: '/x', ...http } }
    await unary({ workload }, { attributes: { request, context_extensions: extensions } })
    return asked?.body
  }
  const whole = { 'x-envoy-auth-partial-body': 'false' }
  const raw = (...pairs: [string, string][]) => ({
    header_map: { headers: pairs.map(([key, value]) => ({ key, raw_value: Buffer.from(value) })) },
  })

  it.each([
    ['the whole', { headers: whole, raw_body: BODY }, BODY],
    ['the whole, by its length too', { headers: { ...whole, 'content-length': '5' }, raw_body: BODY }, BODY],
    ['the whole as text', { headers: whole, body: BODY }, BODY],
    ['an empty one', { headers: { ...whole, 'content-length': '0' } }, Buffer.alloc(0)],
    ['a part', { headers: { 'x-envoy-auth-partial-body': 'true' }, raw_body: BODY }, undefined],
    ['less than its length', { headers: { ...whole, 'content-length': '6' }, raw_body: BODY }, undefined],
    ['nothing', { headers: {} }, undefined],
    ['nothing, while the caller says it is the whole', { headers: whole }, undefined],
    [
      'a part, while the caller says it is the whole',
      {
        ...raw(['x-envoy-auth-partial-body', 'false'], ['x-envoy-auth-partial-body', 'true']),
        raw_body: BODY,
      },
      undefined,
    ],
    [
      'the whole, while the caller says it is a part',
      {
        ...raw(['x-envoy-auth-partial-body', 'true'], ['x-envoy-auth-partial-body', 'false']),
        raw_body: BODY,
      },
      BODY,
    ],
  ])('%s', async (_what, http, body) => {
    const hasOctets = 'raw_body' in http || 'body' in http
    expect(await shown(http)).toEqual({ whole: body, hasOctets, isRequired: false })
  })

  it('may have to be all of it', async () => {
    const nothing = { whole: undefined, hasOctets: false }
    expect(await shown({ headers: {} }, { body: 'required' })).toEqual({ ...nothing, isRequired: true })
    // A slip of whoever wrote it must not mean that nothing is required.
    expect(await shown({ headers: {} }, { body: 'Required' })).toBeUndefined()
  })
})
