/** The TCP ports: ops for the machine's keepers, the bundle endpoint for everybody. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import { loadServices } from '../../src/client/grpc.ts'
import { clientJwksPath, openBundleEndpoint } from '../../src/issue/bundle-endpoint.ts'
import { embeddedAuthority } from '../../src/issue/embedded.ts'
import { parseBundle } from '../../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'
import { startAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { ManualClock } from '../support/clock.ts'
import { RawClient } from '../support/raw-client.ts'

const anyPort = { host: '127.0.0.1', port: 0 }
const get = (port: number | undefined, path: string, init = {}) =>
  fetch(`http://127.0.0.1:${port}${path}`, init)

describe('the ops port', () => {
  it('says alive, ready and what was counted, and names nobody', async () => {
    await using agent = await startAgent({ config: (config) => ({ ...config, ops: { listen: anyPort } }) })
    await call(agent.socket, 'POST', '/v1/dpop', {
      body: { method: 'GET', url: 'https://api.example.test/secret-path' },
    })
    await call(agent.socket, 'POST', '/v1/dpop', {
      body: { method: 'GET', url: 'https://other.example.test/' },
    })
    using client = new RawClient(agent.socket)
    await client.unary('holdfast.v1.ProofService/ListKeys', {})
    const { opsPort } = agent.daemon
    expect(await (await get(opsPort, '/livez')).text()).toBe('alive\n')
    expect((await get(opsPort, '/readyz')).status).toBe(200)
    const metrics = await (await get(opsPort, '/metrics')).text()
    expect(metrics).toMatch(/^holdfast_proofs_total\{kind="dpop"\} 1$/m)
    expect(metrics).toMatch(/^holdfast_refusals_total\{reason="target_unknown",owner="platform"\} 1$/m)
    expect(metrics).toMatch(/^holdfast_requests_total\{method="dpop",reason="ok"\} 1$/m)
    expect(metrics).toMatch(/^holdfast_requests_total\{method="ListKeys",reason="ok"\} 1$/m)
    expect(metrics).toMatch(/^holdfast_series_dropped_total 0$/m)
    expect(metrics).toMatch(/^holdfast_keys 1$/m)
    const [, ends] = /^holdfast_ca_expiration_timestamp_seconds (\d+)$/m.exec(metrics) ?? []
    expect(Number(ends)).toBe(agent.authority.caLife().notAfter)
    expect(metrics).toMatch(/^holdfast_ca_lifetime_seconds 86410$/m)
    expect(metrics).not.toMatch(/spiffe:|example\.test|secret-path/)
  })

  it('is alive but not ready while the agent drains', async () => {
    await using agent = await startAgent({ config: (config) => ({ ...config, ops: { listen: anyPort } }) })
    const { opsPort } = agent.daemon
    const held = await fetch(`http://127.0.0.1:${opsPort}/readyz`)
    expect(held.status).toBe(200)
    agent.health.begin('test')
    const waiting = await get(opsPort, '/readyz')
    expect([waiting.status, await waiting.text()]).toEqual([503, expect.stringContaining('pending test')])
    expect((await get(opsPort, '/livez')).status).toBe(200)
  })

  it.each([
    ['POST', '/metrics', 405],
    ['GET', '/nothing', 404],
  ])('answers %s %s with %i', async (method, path, status) => {
    await using agent = await startAgent({ config: (config) => ({ ...config, ops: { listen: anyPort } }) })
    expect((await get(agent.daemon.opsPort, path, { method })).status).toBe(status)
  })
})

describe('the bundle endpoint', () => {
  const trustDomain = parseTrustDomain('example.org')
  const authority = embeddedAuthority({
    trustDomain,
    clock: new ManualClock(),
    algorithm: 'ES256',
    intermediate: false,
    caTtl: 86_400,
    keyTtl: 86_400,
    wit: true,
  })
  const clients = { jwks: (name: string) => (name === 'as/one' ? '{"keys":[]}' : undefined), maxAge: 60 }
  const files = { certificateFile: undefined, keyFile: undefined }
  const plain = { bundle: authority.bundle, clients, ...anyPort, ...files }

  it('serves a bundle that SPIFFE consumers read, with all three kinds of key', async () => {
    const endpoint = await openBundleEndpoint({ ...plain, issuer: undefined })
    const answer = await get(endpoint.port, '/')
    expect(answer.headers.get('content-type')).toBe('application/json')
    const bundle = parseBundle(await answer.text(), trustDomain)
    expect([bundle.x509Authorities.length, bundle.jwtAuthorities.size, bundle.witAuthorities.size]).toEqual([
      1, 1, 1,
    ])
    endpoint.stop()
  })

  it('lets a generic OIDC verifier check a JWT-SVID from discovery alone', async () => {
    await using agent = await startAgent({
      config: (config) => ({
        ...config,
        bundleEndpoint: {
          ...config.bundleEndpoint,
          listen: { host: '127.0.0.1', port: 0 },
          issuer: 'http://127.0.0.1',
        },
      }),
    })
    const { endpointPort } = agent.daemon
    const discovery = (await (await get(endpointPort, '/.well-known/openid-configuration')).json()) as Record<
      string,
      string
    >
    expect(discovery).toMatchObject({ issuer: 'http://127.0.0.1', jwks_uri: 'http://127.0.0.1/keys' })
    const connection = loadServices()(agent.socket)
    const { svids } = await connection.unary(
      'SpiffeWorkloadAPI/FetchJWTSVID',
      { audience: ['other'] },
      { timeout: 5_000 },
    )
    connection.close()
    const [{ svid }] = svids as [{ svid: string }]
    const keys = createRemoteJWKSet(new URL(`http://127.0.0.1:${endpointPort}/keys`))
    const { payload } = await jwtVerify(svid, keys, { audience: 'other', issuer: 'http://127.0.0.1' })
    expect(payload.sub).toMatch(/^spiffe:\/\/dev\.holdfast\.test\//)
  })

  it('has no discovery without an issuer, takes no other method, and knows no other path', async () => {
    const endpoint = await openBundleEndpoint({ ...plain, issuer: undefined })
    expect((await get(endpoint.port, '/.well-known/openid-configuration')).status).toBe(404)
    expect((await get(endpoint.port, '/', { method: 'POST' })).status).toBe(405)
    expect((await get(endpoint.port, '/../etc/passwd')).status).toBe(404)
    endpoint.stop()
  })

  it('serves the JWK Set of a client by the name of its server, for a minute, to GET and HEAD only', async () => {
    const endpoint = await openBundleEndpoint({ ...plain, issuer: undefined })
    const path = clientJwksPath('as/one')
    const answer = await get(endpoint.port, path)
    expect([answer.status, await answer.text()]).toEqual([200, '{"keys":[]}'])
    expect(answer.headers.get('content-type')).toBe('application/json')
    expect(answer.headers.get('cache-control')).toBe('public, max-age=60')
    const head = await get(endpoint.port, path, { method: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS'])
      expect((await get(endpoint.port, path, { method })).status).toBe(405)
    endpoint.stop()
  })

  it.each([
    '/clients/as/one/jwks.json',
    '/clients/other/jwks.json',
    '/clients//jwks.json',
    '/clients/as%2Fone/jwks.json/',
    '/clients/%zz/jwks.json',
    '/clients/as%2Fone',
    `/clients/${'a'.repeat(513)}/jwks.json`,
  ])('has nothing at %s', async (path) => {
    const endpoint = await openBundleEndpoint({ ...plain, issuer: undefined })
    expect((await get(endpoint.port, path)).status).toBe(404)
    endpoint.stop()
  })

  it('says try later, and nothing else, when a key cannot be had', async () => {
    const jwks = () => {
      throw new Fault('config_invalid', '/etc/holdfast/client.pem: no key')
    }
    const endpoint = await openBundleEndpoint({ ...plain, clients: { jwks, maxAge: 60 }, issuer: undefined })
    const answer = await get(endpoint.port, '/clients/as/jwks.json')
    expect([answer.status, answer.headers.get('retry-after'), await answer.text()]).toEqual([503, '10', ''])
    expect((await get(endpoint.port, '/keys')).status).toBe(200)
    endpoint.stop()
  })

  it('refuses plain HTTP beyond loopback', async () => {
    await expect(openBundleEndpoint({ ...plain, host: '0.0.0.0', issuer: undefined })).rejects.toThrow(
      /plain HTTP on 0\.0\.0\.0/,
    )
  })

  it('speaks TLS with the certificate of its files, never below 1.2', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-'))
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '1',
        '-keyout',
        key,
        '-out',
        cert,
        ...subject,
      ],
      { stdio: 'ignore' },
    )
    const endpoint = await openBundleEndpoint({
      ...plain,
      certificateFile: cert,
      keyFile: key,
      issuer: undefined,
    })
    const ask = (options: object) =>
      new Promise<number | string>((resolve) => {
        request(
          {
            host: '127.0.0.1',
            port: endpoint.port,
            servername: 'localhost',
            ca: readFileSync(cert),
            ...options,
          },
          (response) => {
            response.resume()
            resolve(response.statusCode ?? 0)
          },
        )
          .on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
          .end()
      })
    expect(await ask({})).toBe(200)
    expect(await ask({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1' })).not.toBe(200)
    endpoint.reload()
    expect(await ask({})).toBe(200)
    endpoint.stop()
    rmSync(folder, { recursive: true })
  })
})
