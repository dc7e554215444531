import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ClientKeys } from '../../../src/egress/client-key.ts'
import { endpointUrl } from '../../../src/issue/bundle-endpoint.ts'
import { Vault } from '../../../src/keys/vault.ts'
import { registrationAt } from '../../../src/operate/client-registration.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'
import { bookOf, LAYERS } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'

const USED = 'server: login\n    scopes: [read, write]\n    resource: https://orders.example.org'

async function registered(client: string, name = 'login') {
  const server = `servers:\n  - { name: login, issuer: "https://as.example.org"${client === '' ? '' : `, client: ${client}`} }\n`
  const identity = LAYERS.identity
    .replace(WHERE, client === '' ? 'server: login' : USED)
    .replace('targets:', `${server}targets:`)
  const book = await bookOf({ ...LAYERS, identity })
  const clock = new ManualClock()
  const vault = new Vault({ clock, rotation: 3_600 })
  const keys = new ClientKeys({ vault, signal: new AbortController().signal })
  const endpoint = () => 'https://keys.example.org'
  return () => registrationAt({ book, keys, endpoint, caFile: undefined }, name)
}

describe('what is registered', () => {
  it.each([
    [
      '{ auth: tls_client_auth }',
      { token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_san_uri: 'spiffe://example.org/web' },
    ],
    [
      '{ auth: jwt_spiffe }',
      {
        token_endpoint_auth_method: 'spiffe_jwt',
        spiffe_id: 'spiffe://example.org/web',
        spiffe_bundle_endpoint: 'https://keys.example.org/bundle',
      },
    ],
    [
      '{ auth: jwt_bearer }',
      { token_endpoint_auth_method: 'private_key_jwt', jwks_uri: 'https://keys.example.org/keys' },
    ],
  ])('for %s is one client for each workload that may call', async (client, expected) => {
    const found = (await registered(client))()
    expect(found.clients[0]).toMatchObject({
      client_id: 'spiffe://example.org/web',
      grant_types: ['client_credentials'],
      scope: 'read write',
      dpop_bound_access_tokens: true,
      ...expected,
    })
    expect(found.targets).toEqual([
      {
        name: 'orders',
        resource: 'https://orders.example.org',
        scopes: ['read', 'write'],
        binding: ['dpop'],
      },
    ])
  })

  it('of a mounted key is its public half, as the key outlives the agent', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-registration-'))
    const file = join(dir, 'client.pem')
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' })
    writeFileSync(file, String(privateKey.export({ format: 'pem', type: 'pkcs8' })))
    chmodSync(file, 0o600)
    const found = (await registered(`{ id: shop, auth: private_key_jwt, key: { file: ${file} } }`))()
    const [client] = found.clients
    expect(client).toMatchObject({ client_id: 'shop', token_endpoint_auth_signing_alg: 'ES384' })
    expect(client?.jwks_uri).toBeUndefined()
    expect(Object.keys(client?.jwks?.keys[0] ?? {}).sort()).toEqual([
      'alg',
      'crv',
      'kid',
      'kty',
      'use',
      'x',
      'y',
    ])
    expect(JSON.stringify(found)).not.toContain(String(privateKey.export({ format: 'jwk' }).d))
    rmSync(dir, { recursive: true })
  })

  it.each([
    [
      '{ auth: tls_client_auth }',
      'logni',
      'not_found: policy names no server "logni", did you mean "login"?',
    ],
    [
      '',
      'login',
      'not_found: policy states no client for the server login: the agent asks for no token there',
    ],
  ])('is refused for the client %j of %s', async (client, name, expected) => {
    expect(faultOf(await registered(client, name))).toBe(expected)
  })
})

describe('where others reach the bundle endpoint', () => {
  const place = { listen: { host: '127.0.0.1' }, port: 8443, certificateFile: undefined, issuer: undefined }

  it.each([
    [{}, 'http://127.0.0.1:8443'],
    [
      { listen: { host: 'keys.example.org' }, certificateFile: '/etc/c.pem' },
      'https://keys.example.org:8443',
    ],
    [{ listen: { host: '::1' } }, 'http://[::1]:8443'],
    [{ listen: { host: '0.0.0.0' }, issuer: 'https://keys.example.org/a/' }, 'https://keys.example.org/a'],
  ])('with %j is %s', (over, expected) => {
    expect(endpointUrl({ ...place, ...over })).toBe(expected)
  })

  it.each([
    [{ listen: undefined, issuer: 'https://keys.example.org' }, 'bundle_endpoint.listen is off'],
    [{ port: undefined }, 'bundle_endpoint.listen is off'],
    [
      { listen: { host: '0.0.0.0' } },
      'bundle_endpoint.listen is 0.0.0.0, which no other machine can ask for',
    ],
    [{ listen: { host: '::' } }, 'bundle_endpoint.listen is ::, which no other machine can ask for'],
  ])('is nowhere with %j', (over, expected) => {
    expect(faultOf(() => endpointUrl({ ...place, ...over }))).toBe(`config_invalid: ${expected}`)
  })
})
