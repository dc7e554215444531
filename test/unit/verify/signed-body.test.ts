/** Signed requests in the application's own process: query and body are those that were signed, or nothing gets through. */
import { describe, expect, it } from 'vitest'
import { holdKey } from '../../../src/keys/signer.ts'
import { digestOf } from '../../../src/proof/content-digest.ts'
import { makeWimseSignature } from '../../../src/proof/wimse-signature.ts'
import { formatBundle } from '../../../src/spiffe/bundle.ts'
import type { SpiffeId } from '../../../src/spiffe/id.ts'
import { makeWitSvid } from '../../../src/spiffe/witsvid.ts'
import { BODY_LIMIT } from '../../../src/verify/body.ts'
import { makeVerifier } from '../../../src/verify/create.ts'
import { bundleOfKeys } from '../../support/tokens.ts'
import { openVerifier } from '../../support/verifier.ts'

const WEB = 'spiffe://example.org/web' as SpiffeId

async function open() {
  const v = await openVerifier()
  const heard: string[] = []
  const text = formatBundle(bundleOfKeys({ jwt: { j1: v.issuer }, wit: { w1: v.wit } }))
  const verifier = makeVerifier(
    {
      origins: ['https://mesh.example.org'],
      binding: ['http-signature'],
      grants: [{ callers: [WEB], methods: ['*'], paths: ['/**'] }],
      bundleOf: () => text,
      onRefused: ({ reason }) => heard.push(reason),
    },
    v.clock,
  )
  v.clock.advance(20_000)
  const handle = verifier.fetchHandler(async (request, { content_digest: digest }) =>
    Response.json({ body: await request.text(), digest }),
  )
  const send = async (over: { query?: string; sent?: string; signed?: string | undefined }) => {
    const { query = '?a=1', sent = 'hello', signed = sent } = over
    const now = v.clock.now() / 1000
    const claims = {
      spiffeId: WEB,
      publicJwk: v.key.publicJwk,
      jwkAlg: 'ES256',
      now,
      expires: now + 300,
      kid: 'w1',
    }
    const wit = makeWitSvid(claims, holdKey(v.wit.privateKey, 'ES256'))
    const headers = [
      'Workload-Identity-Token',
      wit,
      ...('signed' in over && over.signed === undefined
        ? []
        : ['Content-Digest', digestOf(Buffer.from(signed))]),
    ]
    const base = { method: 'POST', scheme: 'https', authority: 'x', path: '/x', query: '?a=1', headers }
    const wish = { aud: 'https://mesh.example.org/x', extra: [] }
    const { input, signature } = makeWimseSignature(v.key, base, wish, v.clock)
    const all = [...headers, 'Signature-Input', input, 'Signature', signature]
    const pairs = all.flatMap((name, at) =>
      at % 2 === 0 ? [[name, all[at + 1] ?? ''] as [string, string]] : [],
    )
    return handle(
      new Request(`https://internal/x${query}`, { method: 'POST', headers: pairs, body: Buffer.from(sent) }),
    )
  }
  return { heard, send }
}

describe('a signed request', () => {
  it('comes with the query and the body that were signed', async () => {
    const { heard, send } = await open()
    const answer = await send({})
    expect([answer.status, heard]).toEqual([200, []])
    expect(await answer.json()).toEqual({ body: 'hello', digest: digestOf(Buffer.from('hello')) })
  })

  it('is refused with another query', async () => {
    const { heard, send } = await open()
    expect([(await send({ query: '?a=2' })).status, heard]).toEqual([400, ['proof_forged']])
  })

  it.each([
    ['another body', { signed: 'hullo' }],
    ['a body that nothing signs', { signed: undefined }],
    ['a longer body than is read', { sent: 'x'.repeat(BODY_LIMIT + 1) }],
  ])('is refused with %s', async (_what, over) => {
    const { send } = await open()
    expect((await send(over)).status).toBe(400)
  })
})
