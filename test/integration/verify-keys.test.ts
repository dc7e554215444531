/** Keys that mean harm, of a server whose tokens are taken or in a request: little is spent on them, and others are served on. */
import { createPublicKey, verify } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { publicJwkOf } from '../../src/spiffe/jwk.ts'
import { makeJws } from '../../src/spiffe/jws.ts'
import { ecPair } from '../support/certificates.ts'
import { makeHugeRsa } from '../support/huge-rsa.ts'
import { type DocumentServer, openDocuments, openMiddleware } from '../support/middleware.ts'
import { openVerifier } from '../support/verifier.ts'
import { type Over, openVerifyRig, type VerifyRig } from '../support/verify-rig.ts'
import { WAYS, type Way } from '../support/verify-ways.ts'

const MANY = 10_000
const many = (kid: string) => {
  const jwk = publicJwkOf(ecPair().publicKey)
  return Array.from({ length: MANY }, (_, at) => ({ ...jwk, kid: `${kid}${at}`, use: 'sig' }))
}
const small = Array.from({ length: MANY }, (_, at) => ({ kid: `${at}` }))
const huge = makeHugeRsa(16_384)
const hugeKid = { ...huge.publicJwk, kid: 'huge', use: 'sig' }

/** The same token, signed by the huge key. */
function byHuge(token: string, header: object): string {
  const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
  return makeJws({ alg: 'RS256', typ: 'at+jwt', ...header }, claims, huge)
}

it('the huge key is one, and signs', () => {
  const input = Buffer.from('x')
  const key = createPublicKey({ key: huge.publicJwk, format: 'jwk' })
  expect(key.asymmetricKeyDetails?.modulusLength).toBe(16_384)
  expect(verify('sha256', input, key, huge.sign(input))).toBe(true)
})

describe('the agent', () => {
  let rig: VerifyRig
  let set: (own: object) => object

  beforeEach(() => {
    set = (own) => ({ keys: [own] })
  })
  afterAll(() => rig?.[Symbol.asyncDispose]())
  beforeAll(async () => {
    rig = await openVerifyRig({ jwks: (own) => set(own) })
  })

  const [way] = WAYS as readonly [Way]
  const ask = (over?: Over) => way.ask(rig.socket, rig.request(over))
  const fetches = () => rig.asked.filter((path) => path === '/jwks').length
  const reason = () => rig.verdicts().at(-1)?.reason

  it.each([
    ['of 2 MB', many('x')],
    ['within the bytes that are taken', small],
  ])(
    'does not take a JWK Set of 10,000 keys %s, asks for it no more than for any, and uses the last one on',
    async (_what, keys) => {
      expect((await ask()).isAllowed).toBe(true)
      set = (own) => ({ keys: [...keys, own] })
      rig.pass(601)
      const before = fetches()
      expect((await ask()).isAllowed).toBe(true)
      for (let at = 0; at < 20; at++) {
        const heard = await ask({ header: { kid: `x${at}` } })
        expect([heard.isAllowed, heard.reason]).toEqual([false, 'token_forged'])
      }
      expect(fetches() - before).toBe(1)
      // Nor is it used on for ever.
      rig.pass(3_601)
      const heard = await ask()
      expect([heard.status, heard.reason]).toEqual([503, 'verifier_keys'])
      expect(heard.body.error.message).toMatch(/over \d+ bytes|has 10001 keys, wanted 256 at most/)
      set = (own) => ({ keys: [own] })
      rig.pass(31)
      expect((await ask()).isAllowed).toBe(true)
    },
  )

  describe.each(WAYS.map((one) => [one.name, one] as const))('by %s', (_name, one) => {
    it('takes no token of an RSA key of 16384 bits, whoever has it, and the other keys of the set count', async () => {
      set = (own) => ({ keys: [hugeKid, own] })
      rig.pass(601)
      for (const header of [{ kid: 'huge' }, { kid: 'k1', jwk: huge.publicJwk }]) {
        const request = rig.request({ token: byHuge(rig.token(), header) })
        expect((await one.ask(rig.socket, request)).isAllowed).toBe(false)
        expect(reason()).toBe('token_forged')
      }
      expect((await one.ask(rig.socket, rig.request())).isAllowed).toBe(true)
    })

    it('takes no proof of an RSA key of 16384 bits', async () => {
      const heard = await one.ask(rig.socket, rig.request({ key: huge }))
      expect(heard.isAllowed).toBe(false)
      expect(reason()).toBe('proof_malformed')
    })
  })
})

describe('the middleware', () => {
  let keys: DocumentServer

  beforeAll(async () => {
    keys = await openDocuments()
  })
  afterAll(() => keys[Symbol.asyncDispose]())

  async function open() {
    const v = await openVerifier()
    const { verifier, heard } = openMiddleware(v, keys, 'api')
    const own = JSON.parse(keys.documents.get('/jwks')?.body ?? '').keys[0]
    const ask = async (over: Parameters<typeof v.request>[0] = {}) => {
      heard.length = 0
      const { method, path: url, headers: rawHeaders } = v.request(over)
      const headers = Object.fromEntries(
        rawHeaders.flatMap((name, at) => (at % 2 ? [] : [[name.toLowerCase(), rawHeaders[at + 1]]])),
      )
      const message = { method, url, rawHeaders: [...rawHeaders], headers, socket: new Socket() }
      const { verified } = await verifier.node(message as unknown as IncomingMessage)
      return verified ? 'ok' : (heard[0] ?? 'unheard')
    }
    const serve = (...list: object[]) => keys.documents.set('/jwks', { body: JSON.stringify({ keys: list }) })
    keys.asked.length = 0
    return { v, own, ask, serve }
  }

  it('asks once for the keys of a server, whoever makes up key after key', async () => {
    const { v, ask } = await open()
    expect(await ask()).toBe('ok')
    const flood = Array.from({ length: 200 }, (_, at) => ask({ token: v.token({}, { kid: `x${at}` }) }))
    expect(new Set(await Promise.all(flood))).toEqual(new Set(['token_forged']))
    expect(keys.asked).toEqual(['/jwks'])
    v.clock.advance(31_000)
    await Promise.all(Array.from({ length: 50 }, (_, at) => ask({ token: v.token({}, { kid: `y${at}` }) })))
    expect(keys.asked).toEqual(['/jwks', '/jwks'])
    expect(await ask()).toBe('ok')
  })

  it.each([
    ['of 2 MB', many('x')],
    ['within the bytes that are taken', small],
  ])('takes nothing while there is but a JWK Set of 10,000 keys %s', async (_what, list) => {
    const { v, own, ask, serve } = await open()
    serve(...list, own)
    for (let at = 0; at < 20; at++) expect(await ask()).toBe('verifier_keys')
    expect(keys.asked).toEqual(['/jwks'])
    serve(own)
    v.clock.advance(31_000)
    expect(await ask()).toBe('ok')
  })

  it('takes no token of an RSA key of 16384 bits, and the other keys of the set count', async () => {
    const { v, own, ask, serve } = await open()
    serve(hugeKid, own)
    for (const header of [{ kid: 'huge' }, { kid: 'k1', jwk: huge.publicJwk }])
      expect(await ask({ token: byHuge(v.token(), header) })).toBe('token_forged')
    expect(await ask({ key: huge, claims: { cnf: { jkt: huge.jkt } } })).toBe('proof_malformed')
    expect(await ask()).toBe('ok')
  })
})
