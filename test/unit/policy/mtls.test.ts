/** Targets with `binding: [mtls]` in policy: what goes with it, and what weakens it. */
import { describe, expect, it } from 'vitest'
import { bookOf, LAYERS, problemsIn } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'

interface Over {
  readonly binding?: string
  readonly custody?: string
  readonly client?: string
  readonly server?: string
  readonly platform?: string
  readonly deliver?: string
}

function shop(over: Over = {}) {
  const { binding = '[mtls]', custody = 'nothing', client = '{ auth: tls_client_auth }' } = over
  const { server = 'server: login', platform = LAYERS.platform, deliver = 'x509: false' } = over
  const named = `servers:\n  - { name: login, issuer: "https://as.example.org", client: ${client} }\ntargets:`
  const identity = LAYERS.identity
    .replace(WHERE, `${server}\n    binding: ${binding}`)
    .replace('custody: headers', `custody: ${custody}`)
    .replace('x509: false', deliver)
    .replace('targets:', named)
  return { ...LAYERS, identity, platform }
}

describe('a target bound by mtls', () => {
  it.each([
    ['tls_client_auth', {}],
    ['private_key_jwt', { client: '{ id: shop, auth: private_key_jwt }' }],
    ['no server', { server: 'server: none\n    tokenless: true' }],
  ])('goes with %s', async (_what, over) => {
    expect(await problemsIn(shop(over))).toEqual([])
  })

  it.each<[string, Over, readonly string[]]>([
    ['another kind', { binding: '[mtls, dpop]' }, ['orders: binding: [mtls] stands alone']],
    [
      'headers for the application',
      { custody: 'headers' },
      [
        'orders: only the agent can show the certificate, so that headers and tokens are of no use: set custody: nothing',
      ],
    ],
    [
      'tokens for the application',
      { custody: 'token' },
      [
        'orders: only the agent can show the certificate, so that headers and tokens are of no use: set custody: nothing',
      ],
    ],
    [
      'plain HTTP on loopback',
      { platform: LAYERS.platform.replace('https://orders.example.org', 'http://localhost:8080') },
      ['orders: binding: [mtls] wants https, and http://localhost:8080 is not'],
    ],
    [
      'the sidecar, which has no certificate',
      { platform: LAYERS.platform.replace('"] }', '"], via: sidecar }') },
      [expect.stringContaining('custody'), expect.stringContaining('bound by mtls')],
    ],
  ])('does not go with %s', async (_what, over, messages) => {
    const found = await problemsIn(shop(over))
    expect(found.map((text) => text.replace(/^\S+: /, ''))).toEqual(messages)
  })

  it('does not go with a client whose proof is DPoP', async () => {
    const found = await problemsIn(shop({ client: '{ auth: attest_jwt_client_auth_dpop }' }))
    expect(found.length).toBeGreaterThan(0)
    expect(found.every((text) => text.includes('attest_jwt_client_auth_dpop'))).toBe(true)
  })

  it('is graded insecure when its callers are delivered the certificate that is all it asks for', async () => {
    const codes = async (over: Over) =>
      (await bookOf(shop(over))).weaknesses.map(({ code, grade }) => `${code} ${grade}`)
    const open = { server: 'server: none\n    tokenless: true' }
    expect(await codes({ ...open, deliver: 'x509: true' })).toContain('deliver_and_sign insecure')
    expect(await codes(open)).not.toContain('deliver_and_sign insecure')
  })
})
