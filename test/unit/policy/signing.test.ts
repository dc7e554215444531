/** Statements about requests that are signed: what may be stated, and what nobody could carry out. */
import { describe, expect, it } from 'vitest'
import { bookOf, LAYERS, problemsIn } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'

function shop(signed: string, binding = 'http-signature') {
  return {
    ...LAYERS,
    identity: LAYERS.identity.replace(WHERE, `server: none\n    tokenless: true\n    binding: [${binding}]`),
    application: LAYERS.application.replace('callers:', `signed_headers: ${signed}\n        callers:`),
  }
}

describe('signed_headers of a grant', () => {
  it('are names of headers that a caller may send', async () => {
    const book = await bookOf(shop('[content-type, x-batch, txn-token]'))
    const [grant] = book.targets.get('orders')?.application?.grants ?? []
    expect(grant?.signedHeaders).toEqual(['content-type', 'x-batch', 'txn-token'])
  })

  it.each([
    ['dpop', /orders: its grant has signed_headers, and its requests are not signed: add http-signature/],
    ['wpt', /add http-signature to binding/],
  ])('are refused where requests are bound by %s alone', async (binding, message) => {
    const problems = await problemsIn(shop('[x-batch]', binding))
    expect(problems).toEqual([expect.stringMatching(message)])
  })

  it.each([
    'authorization',
    'dpop',
    'content-digest',
    'signature-input',
    'workload-identity-token',
    'host',
    'content-length',
    'connection',
    'transfer-encoding',
    'x-forwarded-for',
    'client-cert',
    'holdfast-subject',
  ])('are refused with %s, which is no caller to decide on', async (name) => {
    const problems = await problemsIn(shop(`[x-batch, ${name}]`))
    expect(problems).toEqual([
      expect.stringMatching(
        `orders: signed_headers has ${name}, which is no caller's to send: leave it out$`,
      ),
    ])
  })

  it.each(['X-Batch', '"@method"', '"x batch"', '""', 'x_batch'])(
    'are refused with the name %s',
    async (name) => {
      expect(await problemsIn(shop(`[${name}]`))).toEqual([
        expect.stringMatching(/is not a header name in lower case$/),
      ])
    },
  )
})
