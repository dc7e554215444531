/** What `createVerifier` refuses to begin with: options that are wrong, unclear or cannot be carried out. */
import { createSecretKey, generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createVerifier } from '../../../src/verify/index.ts'
import type { VerifierOptions } from '../../../src/verify/options.ts'
import { faultOf } from '../../support/faults.ts'

const SERVERS = [{ name: 'login', issuer: 'https://login.example.org' }]
const GRANT = { callers: ['client:login/web'], methods: ['GET'], paths: ['/orders/**'] }
const RIGHT = {
  servers: SERVERS,
  origins: ['https://api.example.org'],
  audience: ['https://api.example.org'],
  grants: [GRANT],
}

/** The options may be of any shape: what callers in JavaScript pass is not checked by a compiler. */
const said = (over: object | undefined) =>
  faultOf(() => createVerifier((over === undefined ? over : { ...RIGHT, ...over }) as VerifierOptions))

describe('options', () => {
  it.each<[string, object]>([
    ['one route', {}],
    ['no grant, which allows nothing', { grants: [] }],
    [
      'all that a route may have',
      { received: '/v1', public: '/orders/v1', nonce: 'required', actDepth: 2, scope: 's' },
    ],
    ['a memory of proofs', { replay: { limit: 1_000, share: 10 } }],
    ['a nonce key of bytes', { nonceKey: new Uint8Array(32) }],
    ['a nonce key', { nonceKey: createSecretKey(Buffer.alloc(32)) }],
    [
      'an exception for bearer tokens',
      { binding: ['bearer'], bearer: { approver: 'a', until: '2030-01-01', clients: ['c'] } },
    ],
  ])('may be %s', (_what, over) => {
    createVerifier({ ...RIGHT, ...over } as VerifierOptions).close()
  })

  it('may be many routes, told apart by their paths', () => {
    const routes = ['/a', '/b'].map((received) => ({
      name: received.slice(1),
      received,
      origins: RIGHT.origins,
      grants: [],
    }))
    createVerifier({ routes }).close()
    createVerifier({ routes: [] }).close()
  })

  it.each<[string, object | undefined, RegExp]>([
    ['nothing', undefined, /^policy_invalid: options: is not an object/],
    [
      'an unknown member',
      { orgins: [] },
      /options: has the unknown member "orgins", did you mean "origins"\?/,
    ],
    [
      'a condition, which wants the agent',
      { grants: [{ ...GRANT, when: 'true' }] },
      /grants\[0\]: has when, which the agent alone carries out/,
    ],
    [
      'introspection, which wants the agent',
      { introspect: true },
      /has introspect, which the agent alone carries out/,
    ],
    [
      'no grants',
      { grants: undefined },
      /options\.grants: is missing: state a list, an empty one allows nothing/,
    ],
    ['grants of no list', { grants: GRANT }, /options\.grants: is not a list/],
    ['no origins', { origins: undefined }, /options\.origins: is missing/],
    [
      'an origin with a path',
      { origins: ['https://api.example.org/x'] },
      /options\.origins\[0\]: .*wanted https:\/\/api/,
    ],
    ['an origin of plain HTTP', { origins: ['http://api.example.org'] }, /is plain HTTP: callers use https/],
    ['a path that is not canonical', { received: '/a/../b' }, /options\.received: .*dot segment/],
    [
      'a method in lower case',
      { grants: [{ ...GRANT, methods: ['get'] }] },
      /methods\[0\]: is not an upper-case method/,
    ],
    ['a caller of no form', { grants: [{ ...GRANT, callers: ['web'] }] }, /callers\[0\]: /],
    ['a scope with a blank', { grants: [{ ...GRANT, scopes: ['a b'] }] }, /scopes\[0\]: is not a scope/],
    [
      'a server of plain HTTP',
      { servers: [{ name: 'l', issuer: 'http://localhost:1' }] },
      /servers\[0\]\.issuer: is not an https URL/,
    ],
    [
      'keys over plain HTTP',
      { servers: [{ ...SERVERS[0], jwksUri: 'http://localhost:1' }] },
      /servers\[0\]\.jwksUri: is not an https URL/,
    ],
    [
      'roots that are none',
      { servers: [{ ...SERVERS[0], ca: 'x' }] },
      /servers\[0\]\.ca: is no certificate in PEM/,
    ],
    ['tokens for nobody', { audience: [] }, /tokens are taken, and no audience is stated/],
    ['bearer tokens without an exception', { binding: ['bearer'] }, /binding bearer wants an exception/],
    [
      'a binding that is not carried out',
      { binding: ['token-exchange'] },
      /binding\[0\]: is none of dpop, mtls/,
    ],
    [
      'a date that is none',
      { bearer: { approver: 'a', until: 'soon', clients: ['c'] } },
      /bearer\.until: .*is not a date/,
    ],
    [
      'certificates of a hop that nothing proves',
      { hops: [{ name: 'gw', addresses: ['192.0.2.1'], certificate: 'xfcc' }] },
      /the hop gw hands on certificates, and an address proves nobody/,
    ],
    ['a hop known by nothing', { hops: [{ name: 'gw' }] }, /hops\[0\]: names neither spiffeId nor addresses/],
    ['a window of a day', { window: 86_400 }, /window: is not a whole number from 5 to 600/],
    ['a window in text', { window: '60' }, /window: is not a whole number/],
    ['a share over the limit', { replay: { limit: 1_000, share: 2_000 } }, /replay\.share: /],
    ['a store without use', { replay: { use: true, stop: () => {} } }, /replay\.use: is not a function/],
    ['a short nonce key', { nonceKey: new Uint8Array(16) }, /nonceKey: has 16 bytes, wanted 32/],
    ['a nonce key in text', { nonceKey: 'x'.repeat(64) }, /nonceKey: is neither bytes nor a secret key/],
    [
      'a nonce key of two halves',
      { nonceKey: generateKeyPairSync('ed25519').privateKey },
      /nonceKey: is neither/,
    ],
    ['a hook that is none', { isRevoked: true }, /isRevoked: is not a function/],
  ])('are refused with %s', (_what, over, message) => {
    expect(said(over)).toMatch(message)
  })

  it('are refused with routes that nobody can tell apart', () => {
    expect(said({ routes: [] })).toMatch(/has both routes and origins/)
    const route = { origins: RIGHT.origins, grants: [] }
    const twice = (a: object, b: object) =>
      faultOf(() =>
        createVerifier({
          routes: [
            { ...route, ...a },
            { ...route, ...b },
          ],
        } as VerifierOptions),
      )
    expect(twice({ name: 'a' }, { name: 'b' })).toMatch(/a and b receive the same path/)
    expect(twice({ name: 'a', received: '/x' }, { name: 'a', received: '/y' })).toMatch(
      /has the route a twice/,
    )
    expect(twice({ name: 'a', received: '/x', servers: ['logn'] }, {})).toMatch(/has the server logn/)
  })

  it.each<[string, object, RegExp]>([
    ['a relative path', { socket: 'verifier.sock' }, /socket: is not the absolute path of a unix socket/],
    ['a path that is too long', { socket: `/${'x'.repeat(120)}` }, /socket: is not the absolute path/],
    ['policy of its own', { socket: '/run/x', grants: [] }, /has the unknown member "grants"/],
    ['a name that is none', { socket: '/run/x', route: 'a b' }, /route: is not a name/],
  ])('of an agent are refused with %s', (_what, options, message) => {
    expect(faultOf(() => createVerifier(options as VerifierOptions))).toMatch(message)
  })
})
