/** Clients that attest themselves by the WIT-SVID over the key of their DPoP proof: a real server, and one made by hand. */
import { describe, expect, it } from 'vitest'
import { parseJws } from '../../src/spiffe/jws.ts'
import { verifyWitSvid } from '../../src/spiffe/witsvid.ts'
import { ecPair } from '../support/certificates.ts'
import { type Answer, json } from '../support/hostile-issuer.ts'
import { idOf, RESOURCE, refusal, serverAt, type TokenRig } from '../support/token-rig.ts'
import { OPAQUE, open, start, startHostile } from '../support/token-suite.ts'
import { signToken } from '../support/tokens.ts'
import { until } from '../support/until.ts'

const CLIENT = { method: 'attest_jwt_client_auth_dpop', clientId: undefined } as const
const CLIENTS = [{ clientId: idOf('web'), attested: true, scopes: ['read'] }]

/** A real server that takes attestations of the authority's WIT keys. */
const startReal = (rig: TokenRig, over = {}) =>
  start({
    clients: CLIENTS,
    attesterKey: ({ kid }) => rig.bundle().witAuthorities.get(kid ?? '')?.key,
    ...over,
  })

const attester = ecPair()
/** What a WIT-SVID says, under the `typ` that the draft has: all that a real server does not take of it. */
const draftTyped: Parameters<typeof open>[0] = {
  attest: ({ spiffeId }, { publicJwk }) => {
    const now = Math.floor(Date.now() / 1000)
    const claims = { sub: spiffeId, iat: now, exp: now + 300, cnf: { jwk: publicJwk } }
    return signToken({ alg: 'ES256', typ: 'oauth-client-attestation+jwt' }, claims, attester)
  },
}
const draftServer = (over = {}) =>
  start({ clients: CLIENTS, attesterKey: () => attester.publicKey, resources: OPAQUE, ...over })

describe('a real server', () => {
  it('does not take a WIT-SVID: the typ of an attestation is another one', async () => {
    const rig = open({ attest: 'wit' })
    const issuer = await startReal(rig)
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    expect(await refusal(rig.get(ask))).toBe(
      'issuer_refused: the authorization server refuses the token: invalid_client',
    )
  })

  it('takes the same under that typ, after one challenge, and binds the token to the attested key', async () => {
    const rig = open(draftTyped)
    const issuer = await draftServer({ resources: { [RESOURCE]: { scopes: ['read'] } } })
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    const claims = parseJws((await rig.get(ask)).token.reveal())?.payload
    expect(claims).toMatchObject({ client_id: idOf('web'), cnf: { jkt: ask.signer.jkt } })
    const statuses = () => issuer.requests.filter(({ path }) => path === '/token').map(({ status }) => status)
    expect(statuses()).toEqual([400, 200])
    await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    expect(statuses()).toEqual([400, 200, 200])
  })

  it('refuses an attestation of another workload, and of another key', async () => {
    const rig = open(draftTyped)
    const issuer = await draftServer()
    const stranger = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload('batch')))
    expect(await refusal(stranger)).toContain('invalid_client')
    const other = open({
      attest: (entry, signer) =>
        typeof draftTyped.attest === 'function'
          ? draftTyped.attest(entry, {
              ...signer,
              publicJwk: rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()).signer.publicJwk,
            })
          : '',
    })
    const mixed = other.get(other.ask(serverAt(issuer.issuer, CLIENT), other.workload()))
    expect(await refusal(mixed)).toContain('invalid_client')
  })

  it('takes the token back after the lease, by a key made for that', async () => {
    const rig = open(draftTyped)
    const issuer = await draftServer()
    const one = rig.workload()
    const token = (await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), one))).token.reveal()
    expect(await issuer.isLive(token)).toBe(true)
    one.end()
    await until('the revocation', async () => !(await issuer.isLive(token)))
    await until('the event', () => rig.events.includes('revoked'))
  })
})

const GOOD = { access_token: 'opaque', token_type: 'DPoP', expires_in: 120, scope: 'read' }
const CHALLENGE = 'OAuth-Client-Attestation-Challenge'
const challenge = (value: string | string[], status = 400) =>
  json({ error: 'use_attestation_challenge' }, status, { [CHALLENGE]: value })
const nonceOf = ({ headers }: { readonly headers: Readonly<Record<string, unknown>> }) =>
  parseJws(String(headers['dpop']))?.payload['nonce']

describe('what is sent', () => {
  it('is the WIT-SVID over the key of the proof, once, and no other client credential', async () => {
    const rig = open({ attest: 'wit' })
    const issuer = await startHostile({ token: json(GOOD) })
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    const { jkt } = await rig.get(ask)
    const [one] = issuer.asked()
    const wit = String(one?.headers['oauth-client-attestation'])
    const now = Math.floor(Date.now() / 1000)
    const { spiffeId, jwk } = verifyWitSvid(wit, () => rig.bundle(), now)
    expect([spiffeId, jwk]).toEqual([idOf('web'), ask.signer.publicJwk])
    expect(parseJws(String(one?.headers['dpop']))?.header['jwk']).toEqual(ask.signer.publicJwk)
    expect(jkt).toBe(ask.signer.jkt)
    expect(one?.headers['oauth-client-attestation-pop']).toBeUndefined()
    expect([...(one?.form.keys() ?? [])].sort()).toEqual(['client_id', 'grant_type', 'resource', 'scope'])
  })

  it('is nothing while client attestation is off', async () => {
    const rig = open()
    const issuer = await startHostile({ token: json(GOOD) })
    const got = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    await expect(got).rejects.toMatchObject({
      reason: 'unimplemented',
      message: 'client attestation is off',
      action: expect.stringContaining('tokens.client_attestation: on'),
    })
    expect(issuer.seen).toEqual([])
  })
})

describe('a challenge', () => {
  it.each([400, 401])('by status %i is answered once, as the nonce of a new proof', async (status) => {
    const rig = open({ attest: 'wit' })
    const token: Answer = (r, q, i) => (nonceOf(q) === 'c-1' ? json(GOOD) : challenge('c-1', status))(r, q, i)
    const issuer = await startHostile({ token })
    await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    expect(issuer.asked().map(nonceOf)).toEqual([undefined, 'c-1'])
    const proofs = issuer.asked().map(({ headers }) => parseJws(String(headers['dpop']))?.payload['jti'])
    expect(new Set(proofs).size).toBe(2)
  })

  it('that comes with a token is used for the next one, before a nonce of DPoP', async () => {
    const rig = open({ attest: 'wit' })
    const issuer = await startHostile({ token: json(GOOD, 200, { [CHALLENGE]: 'next', 'dpop-nonce': 'n' }) })
    for (const one of [rig.workload(), rig.workload()])
      await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), one))
    expect(issuer.asked().map(nonceOf)).toEqual([undefined, 'next'])
  })

  it('that is never right ends the request after one more try', async () => {
    let count = 0
    const rig = open({ attest: 'wit' })
    const issuer = await startHostile({ token: (r, q, i) => challenge(`c-${count++}`)(r, q, i) })
    const got = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    expect(await refusal(got)).toBe(
      'issuer_refused: the authorization server refuses the token: use_attestation_challenge',
    )
    expect(count).toBe(2)
  })

  it.each<[string, string | string[]]>([
    ['over 256 characters', 'c'.repeat(257)],
    ['with a quote', 'a"b'],
    ['given twice', ['a', 'b']],
    ['that is empty', ''],
  ])('%s is not used', async (_what, value) => {
    const rig = open({ attest: 'wit' })
    const issuer = await startHostile({ token: challenge(value) })
    const got = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    expect(await refusal(got)).toBe(
      'issuer_unavailable: the authorization server wants an attestation challenge and gives none that can be used',
    )
    expect(issuer.asked()).toHaveLength(1)
  })

  it('means nothing where the client does not attest itself', async () => {
    const rig = open()
    const issuer = await startHostile({ token: challenge('c-1') })
    const server = serverAt(issuer.issuer, { method: 'jwt_spiffe', clientId: undefined, assertion: 'fresh' })
    expect(await refusal(rig.get(rig.ask(server, rig.workload())))).toContain('use_attestation_challenge')
    expect(issuer.asked()).toHaveLength(1)
  })

  it.each([
    ['a bearer token', { token_type: 'Bearer' }],
    [
      'a token of another key',
      { access_token: signToken({ alg: 'ES256' }, { cnf: { jkt: 'A'.repeat(43) } }, attester) },
    ],
  ])('or none, %s is not taken for an attestation', async (_what, over) => {
    const rig = open({ attest: 'wit' })
    const issuer = await startHostile({ token: json({ ...GOOD, ...over }) })
    const got = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    expect(await refusal(got)).toContain('issued_unbound')
  })
})
