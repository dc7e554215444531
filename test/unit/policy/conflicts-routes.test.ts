/** What is wrong with routes once their servers are known. */
import { describe, expect, it } from 'vitest'
import { problemsIn } from '../../support/policy.ts'

const identity = (client: string, route: string) => `layer: identity
servers:
  - { name: login, issuer: https://login.example.org${client} }
routes:
  - { name: api, audience: [a], introspect: true${route} }
`
const WITH_KEY = ', client: { id: verifier, auth: private_key_jwt }'

describe('a route that asks servers about tokens', () => {
  it.each([
    ['without a client', '', ', servers: [login]', 'state a client with auth: private_key_jwt'],
    [
      'as a workload',
      ', client: { auth: tls_client_auth }',
      ', servers: [login]',
      'state a client with auth: private_key_jwt',
    ],
    ['and takes tokens of none', WITH_KEY, '', 'introspect asks servers, and none is stated'],
  ])('%s is refused', async (_what, client, route, message) => {
    const problems = await problemsIn({ identity: identity(client, route) })
    expect(problems).toEqual([expect.stringContaining(`identity.yaml:5: api: `)])
    expect(problems[0]).toContain(message)
  })

  it('as a client with a key of its own is taken', async () => {
    expect(await problemsIn({ identity: identity(WITH_KEY, ', servers: [login]') })).toEqual([])
  })
})
