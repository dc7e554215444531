import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { registerInfo } from '../../../src/cli/client.ts'
import { exitCodeOf } from '../../../src/cli/failure.ts'
import type { ClientRegistration } from '../../../src/operate/client-registration.ts'
import { keptIo } from '../../support/io.ts'
import { type JsonAgent, refusal, startJsonAgent } from '../../support/json-agent.ts'

const FOUND: ClientRegistration = {
  server: 'login',
  issuer: 'https://as.example.org',
  clients: [
    {
      client_id: 'shop',
      token_endpoint_auth_method: 'private_key_jwt',
      jwks_uri: 'https://keys.example.org/clients/login/jwks.json',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      scope: 'read',
      dpop_bound_access_tokens: true,
      tls_client_certificate_bound_access_tokens: false,
    },
  ],
  targets: [{ name: 'orders', scopes: ['read'], binding: ['dpop'] }],
  notes: ['fetch it again\u001b[2J'],
}

let agent: JsonAgent
beforeEach(async () => {
  agent = await startJsonAgent({ 'POST /v1/client-registration': FOUND })
})
afterEach(() => agent[Symbol.asyncDispose]())

describe('client register-info', () => {
  it('asks the running agent for the server and writes what to enter', async () => {
    const io = keptIo()
    expect(await registerInfo('login', { dir: agent.dir }, io)).toBe(0)
    expect(agent.asked[0]?.body).toEqual({ server: 'login' })
    expect(io.written.out).toBe(`Enter this at https://as.example.org (server login in policy).

METADATA                                     VALUE
client_id                                    shop
token_endpoint_auth_method                   private_key_jwt
jwks_uri                                     https://keys.example.org/clients/login/jwks.json
grant_types                                  client_credentials
scope                                        read
dpop_bound_access_tokens                     true
tls_client_certificate_bound_access_tokens   false

TARGET   RESOURCE   SCOPES   BINDING
orders   -          read     dpop

note fetch it again\ufffd[2J
`)
  })

  it('writes the members of RFC 7591 as JSON', async () => {
    const io = keptIo()
    await registerInfo('login', { dir: agent.dir, output: 'json' }, io)
    expect(JSON.parse(io.written.out)).toEqual(FOUND)
  })

  it.each([
    ['not_found', 404, 4],
    ['config_invalid', 500, 2],
  ])('fails with the reason of the agent: %s', async (reason, status, code) => {
    agent.routes['POST /v1/client-registration'] = refusal(reason, status)
    const fault = Fault.from(
      await registerInfo('x', { dir: agent.dir }, keptIo()).catch((caught: unknown) => caught),
    )
    expect([fault.reason, exitCodeOf(fault)]).toEqual([reason, code])
  })
})
