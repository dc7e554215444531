/** Signed requests in the application's own process: query and body are those that were signed, or nothing gets through. */
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../../src/proof/content-digest.ts'
import { BODY_LIMIT } from '../../../src/verify/body.ts'
import { openSignedCaller } from '../../support/signed-caller.ts'

async function open(bodyLimit?: number) {
  const caller = await openSignedCaller(bodyLimit === undefined ? {} : { bodyLimit })
  const { heard, verifier } = caller
  const handle = verifier.fetchHandler(async (request, { content_digest: digest }) =>
    Response.json({ body: await request.text(), digest }),
  )
  const send = (over: { query?: string; sent?: string; signed?: string | undefined }) => {
    const { query = '?a=1', sent = 'hello' } = over
    const signed = 'signed' in over ? over.signed : sent
    const headers = caller.headers(signed === undefined ? undefined : Buffer.from(signed))
    const parts = {
      method: 'POST',
      headers: headers.map((pair) => [...pair] as [string, string]),
      body: Buffer.from(sent),
    }
    return handle(new Request(`https://internal/x${query}`, parts))
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
    ['another body', { signed: 'hullo' }, 400, 'digest_mismatch'],
    ['a body that nothing signs', { signed: undefined }, 400, 'proof_coverage'],
    ['a longer body than is read', { sent: 'x'.repeat(BODY_LIMIT + 1) }, 413, 'body_too_large'],
  ])('is refused with %s', async (_what, over, status, reason) => {
    const { heard, send } = await open()
    expect([(await send(over)).status, heard]).toEqual([status, [reason]])
  })

  it('comes with any body to an application that compares itself', async () => {
    const { heard, send } = await open(0)
    const answer = await send({ signed: 'hullo' })
    expect(await answer.json()).toEqual({ body: 'hello', digest: digestOf(Buffer.from('hullo')) })
    expect(heard).toEqual([])
  })
})
