/** The token client against a real authorization server over TLS: every way to authenticate, nonces, revocation. */
import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { publicJwkOf, thumbprint } from '../../src/spiffe/jwk.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { ManualClock } from '../support/clock.ts'
import type { IssuerOptions } from '../support/issuer.ts'
import {
  idOf,
  privateKeyJwt,
  RESOURCE,
  refusal,
  reloaded,
  serverAt,
  type TokenRig,
} from '../support/token-rig.ts'
import { atEnd, CLIENT, OPAQUE, open, start, startWithKey, tokenRequests } from '../support/token-suite.ts'
import { until } from '../support/until.ts'

describe('a token for the node key of a client', () => {
  it('is bound to the workload key, for the resource and scopes of the target', async () => {
    const rig = open()
    const issuer = await startWithKey(rig)
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    const { token, jkt, expires } = await rig.get(ask)
    const claims = parseJws(token.reveal())?.payload
    expect(claims).toMatchObject({
      iss: issuer.issuer,
      aud: RESOURCE,
      scope: 'read',
      client_id: 'orders-client',
      cnf: { jkt: ask.signer.jkt },
    })
    expect(jkt).toBe(ask.signer.jkt)
    expect(expires).toBeLessThanOrEqual(Number(claims?.['exp']))
    expect(JSON.stringify({ token })).toBe('{"token":"[secret]"}')
  })

  it('is fetched once for many callers, and once for each instance and each target', async () => {
    const rig = open()
    const issuer = await startWithKey(rig)
    const server = serverAt(issuer.issuer, CLIENT)
    const [one, other] = [rig.workload(), rig.workload()]
    const asks = Array.from({ length: 20 }, () => rig.get(rig.ask(server, one)))
    const tokens = await Promise.all(asks)
    expect(new Set(tokens.map(({ token }) => token.reveal())).size).toBe(1)
    expect(tokenRequests(issuer)).toBe(1)
    await rig.get(rig.ask(server, other))
    await rig.get(rig.ask(server, one, {}, 'stock'))
    await rig.get(rig.ask(server, one))
    expect(tokenRequests(issuer)).toBe(3)
  })

  it('is had from a server that wants nonces, with one more request the first time only', async () => {
    const rig = open()
    const issuer = await startWithKey(rig, { nonces: true })
    const server = serverAt(issuer.issuer, CLIENT)
    await rig.get(rig.ask(server, rig.workload()))
    expect(issuer.requests.filter(({ path }) => path === '/token').map(({ status }) => status)).toEqual([
      400, 200,
    ])
    await rig.get(rig.ask(server, rig.workload()))
    expect(tokenRequests(issuer)).toBe(3)
  })

  it('is fetched anew after a change of policy', async () => {
    const rig = open()
    const issuer = await startWithKey(rig)
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    const first = await rig.get(ask)
    rig.book.set(reloaded(rig.book.get()))
    expect((await rig.get(ask)).token.reveal()).not.toBe(first.token.reveal())
  })

  it.each([
    [
      'a scope the client may not have',
      { scopes: ['write'] },
      'issuer_refused: the authorization server refuses the token: invalid_scope',
    ],
    [
      'a target with a shorter ceiling',
      { maxTtl: 60 },
      'issued_too_long: the issued token lives 120 s, allowed are 60 s',
    ],
  ])('is refused for %s', async (_what, over, expected) => {
    const rig = open()
    const issuer = await startWithKey(rig)
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload(), over)
    expect(await refusal(rig.get(ask))).toBe(expected)
  })

  it('is refused for an audience that is not the resource', async () => {
    const rig = open()
    const issuer = await startWithKey(rig, {
      resources: { [RESOURCE]: { scopes: ['read', 'write'], audience: 'https://all.example.org' } },
    })
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    expect(await refusal(rig.get(ask))).toBe(
      'issued_too_wide: the issued token is for another audience than the resource of the target',
    )
  })

  it('is refused to a key that the server does not know, and the server is not asked again at once', async () => {
    const rig = open()
    const stranger = publicJwkOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey)
    const issuer = await start({
      clients: [{ clientId: 'orders-client', jwks: [stranger], scopes: ['read'] }],
    })
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    const expected = 'issuer_refused: the authorization server refuses the token: invalid_client'
    expect(await refusal(rig.get(ask))).toBe(expected)
    const again = rig.get(ask)
    await expect(again).rejects.toMatchObject({ retryAfterSeconds: 1 })
    expect(tokenRequests(issuer)).toBe(1)
  })
})

describe('other ways to authenticate', () => {
  it('takes a mounted key, and reads it again when it has changed', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-key-'))
    atEnd(() => rmSync(dir, { recursive: true }))
    const keyFile = join(dir, 'client.pem')
    const keys = [0, 1].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }))
    const write = (index: number) => {
      writeFileSync(keyFile, String(keys[index]?.privateKey.export({ format: 'pem', type: 'pkcs8' })))
      chmodSync(keyFile, 0o600)
    }
    const jwks = keys.map(({ publicKey }) => ({
      ...publicJwkOf(publicKey),
      kid: thumbprint(publicJwkOf(publicKey)),
    }))
    const rig = open()
    const issuer = await start({ clients: [{ clientId: 'mounted', jwks: jwks.slice(1), scopes: ['read'] }] })
    const server = serverAt(issuer.issuer, privateKeyJwt('mounted', keyFile))
    write(0)
    expect(await refusal(rig.get(rig.ask(server, rig.workload())))).toContain('invalid_client')
    write(1)
    expect(await refusal(rig.get(rig.ask(server, rig.workload())))).toBe('none')
  })

  it('shows an X.509-SVID over mutual TLS, made for this and delivered to nobody', async () => {
    const rig = open()
    const clients = [{ clientId: idOf('web'), sanUri: idOf('web'), scopes: ['read'] }]
    const issuer = await start({ clients, clientRoots: [rig.clientRoot] })
    const server = serverAt(issuer.issuer, { method: 'tls_client_auth', clientId: undefined })
    const { token } = await rig.get(rig.ask(server, rig.workload()))
    expect(parseJws(token.reveal())?.payload).toMatchObject({ client_id: idOf('web') })
    expect(await refusal(rig.get(rig.ask(server, rig.workload('batch'))))).toContain('invalid_client')
  })

  it.each(['jwt_spiffe', 'jwt_bearer'] as const)(
    'says the code of a server that takes no %s',
    async (method) => {
      const rig = open()
      const issuer = await startWithKey(rig)
      const server = serverAt(issuer.issuer, { method, clientId: 'orders-client', assertion: 'fresh' })
      expect(await refusal(rig.get(rig.ask(server, rig.workload())))).toMatch(
        /^issuer_refused: the authorization server refuses the token: invalid_(client|request)$/,
      )
    },
  )

  it('has no JWT-SVID where several nodes do not share a key', async () => {
    const rig = open({ jwt: false })
    const issuer = await startWithKey(rig)
    const server = serverAt(issuer.issuer, { method: 'jwt_spiffe', clientId: undefined, assertion: 'fresh' })
    expect(await refusal(rig.get(rig.ask(server, rig.workload())))).toContain('authority_not_shared')
  })
})

describe('a bearer token', () => {
  const exception = {
    target: 'orders',
    approver: 'sec',
    until: 4_000_000_000,
    maxTtl: 120,
    place: { file: 'f', line: 1 },
  }

  it('is had only under an exception of security', async () => {
    const rig = open({ exception })
    const issuer = await startWithKey(rig)
    await issuer.stop()
    const server = serverAt(issuer.issuer, CLIENT)
    const jwks = rig.clientKeys.jwks(CLIENT, server)
    await start({
      clients: [{ clientId: 'orders-client', jwks, scopes: ['read'], bearer: true }],
      port: Number(new URL(issuer.issuer).port),
    })
    const { token } = await rig.get(rig.ask(server, rig.workload(), { binding: ['bearer'] }))
    expect(parseJws(token.reveal())?.payload['cnf']).toBeUndefined()
  })

  it('is refused where policy wants a bound one and where no exception holds', async () => {
    const rig = open()
    const issuer = await startWithKey(rig, {})
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload(), { binding: ['bearer'] })
    expect(await refusal(rig.get(ask))).toMatch(/^issue[rd]_/)
  })
})

describe('a token that lives longer than the target allows, where policy has it revoked', () => {
  const REVOKE = { maxTtl: 60, tooLong: 'revoke' } as const

  async function held(options: Partial<IssuerOptions> = {}) {
    const clock = new ManualClock(Date.now())
    const rig = open({ clock })
    const issuer = await startWithKey(rig, { resources: OPAQUE, ...options })
    const one = rig.workload()
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), one, REVOKE)
    const token = await rig.get(ask)
    return { clock, rig, issuer, one, ask, token: token.token.reveal(), expires: token.expires }
  }

  it('is used up to max_ttl, and then revoked', async () => {
    const { clock, rig, issuer, ask, token, expires } = await held()
    expect(expires).toBe(Math.floor(clock.now() / 1000) + 60)
    expect((await rig.get(ask)).token.reveal()).toBe(token)
    clock.advance(59_000)
    expect([await issuer.isLive(token), rig.events.includes('revoked')]).toEqual([true, false])
    clock.advance(1_000)
    await until('the revocation', async () => !(await issuer.isLive(token)))
    expect((await rig.get(ask)).token.reveal()).not.toBe(token)
  })

  it('is revoked at its time though policy has changed, and once', async () => {
    const { clock, rig, issuer, token } = await held()
    rig.book.set(reloaded(rig.book.get()))
    expect(await issuer.isLive(token)).toBe(true)
    clock.advance(60_000)
    await until('the revocation', async () => !(await issuer.isLive(token)))
    await until('the event', () => rig.events.includes('revoked'))
    clock.advance(600_000)
    expect(rig.events.filter((event) => event === 'revoked')).toHaveLength(1)
  })

  it.each([false, true])('is revoked with the lease, and once; policy has changed: %s', async (isChanged) => {
    const { clock, rig, issuer, one, token } = await held()
    if (isChanged) rig.book.set(reloaded(rig.book.get()))
    one.end()
    await until('the revocation', async () => !(await issuer.isLive(token)))
    await until('the event', () => rig.events.includes('revoked'))
    clock.advance(60_000)
    expect(issuer.requests.filter(({ path }) => path.includes('revocation'))).toHaveLength(1)
  })

  it('is refused once its server has refused to revoke one: it takes no JWTs back', async () => {
    const resources = { [RESOURCE]: { scopes: ['read', 'write'] } }
    const { clock, rig, ask } = await held({ resources })
    clock.advance(60_000)
    await until('the refusal', () => rig.events.includes('revoked: issuer_refused'))
    expect(await refusal(rig.get(ask))).toBe(
      'issued_too_long: the issued token lives longer than 60 s, and its server has refused to revoke such a token',
    )
  })
})

describe('a token is given back to its server', () => {
  async function held(rig: TokenRig) {
    const issuer = await startWithKey(rig, { resources: OPAQUE })
    const one = rig.workload()
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), one)
    const token = (await rig.get(ask)).token.reveal()
    expect(await issuer.isLive(token)).toBe(true)
    return { issuer, one, ask, token }
  }

  it('when the lease ends', async () => {
    const rig = open()
    const { issuer, one, ask, token } = await held(rig)
    one.end()
    await until('the revocation', async () => !(await issuer.isLive(token)))
    expect(await refusal(rig.get(ask))).toContain('lease_ended')
    expect(rig.tokens.count).toBe(0)
  })

  it('when its key is destroyed', async () => {
    const rig = open()
    const { issuer, ask, token } = await held(rig)
    rig.vault.destroy({ jkt: ask.signer.jkt })
    await until('the revocation', async () => !(await issuer.isLive(token)))
    await until('the event', () => rig.events.includes('revoked'))
  })

  it('when the agent stops, which waits for that, and hands out no other', async () => {
    const rig = open()
    const { issuer, ask, token } = await held(rig)
    await rig.tokens.giveBack(3_000)
    expect(await issuer.isLive(token)).toBe(false)
    expect(await refusal(rig.get(ask))).toContain('draining')
  })

  it('when an operator drops it', async () => {
    const rig = open()
    const { issuer, token } = await held(rig)
    expect([rig.tokens.drop({ target: 'other' }), rig.tokens.drop({ target: 'orders' })]).toEqual([0, 1])
    await until('the revocation', async () => !(await issuer.isLive(token)))
  })

  it('when it lives longer than the target allows', async () => {
    const rig = open()
    const issuer = await startWithKey(rig, { resources: OPAQUE })
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload(), { maxTtl: 60 })
    expect(await refusal(rig.get(ask))).toContain('issued_too_long')
    await until('the revocation', () => rig.events.includes('revoked'))
  })

  it('unless the server does not take it: a JWT ends by itself', async () => {
    const rig = open()
    const issuer = await startWithKey(rig)
    const one = rig.workload()
    await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), one))
    one.end()
    await until('the refusal', () => rig.events.includes('revoked: issuer_refused'))
  })
})
