/** Authorization servers and clients in policy, how they and targets are reached, and exceptions. */
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { notesOn } from '../../../src/policy/check.ts'
import { parsePolicy } from '../../../src/policy/load.ts'
import { bookOf, context, type Files, LAYERS, problemsIn } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'
const SERVER = '  - { name: login, issuer: "https://as.example.org", client: { auth: jwt_spiffe } }\n'

type Layers = Record<keyof typeof LAYERS, string>

/** The shop with a named server: `over` is its line, `target` replaces what orders says of its server. */
function shop(server = SERVER, target = 'server: login', entry = 'jwt: false'): Layers {
  const identity = LAYERS.identity
    .replace(WHERE, target)
    .replace('jwt: false', entry)
    .replace('targets:', `servers:\n${server}targets:`)
  return { ...LAYERS, identity }
}

const targetOf = async (files: Files) => (await bookOf(files)).targets.get('orders')

describe('a named server', () => {
  it('is what its targets take tokens of', async () => {
    const book = await bookOf(shop())
    expect(book.targets.get('orders')?.identity?.server).toMatchObject({
      name: 'login',
      issuer: 'https://as.example.org',
      client: { method: 'jwt_spiffe', clientId: undefined },
    })
    expect([...book.servers.keys()]).toEqual(['login'])
  })

  it('may stand in another identity file than its targets', async () => {
    const { identity, ...rest } = shop('')
    const files = {
      targets: identity.replace('servers:\n', ''),
      servers: `layer: identity\nservers:\n${SERVER}`,
      ...rest,
    }
    expect((await targetOf(files))?.identity?.server?.name).toBe('login')
  })

  it.each([
    ['{ id: shop, auth: private_key_jwt }', { method: 'private_key_jwt', clientId: 'shop' }],
    ['{ id: shop, auth: private_key_jwt, key: node }', { keyFile: undefined }],
    [
      '{ id: shop, auth: private_key_jwt, key: { file: keys/shop.pem } }',
      { keyFile: resolve('keys/shop.pem') },
    ],
    ['{ id: shop, auth: private_key_jwt, key: { file: /etc/shop.pem } }', { keyFile: '/etc/shop.pem' }],
    ['{ auth: tls_client_auth }', { method: 'tls_client_auth', clientId: undefined }],
    ['{ id: shop, auth: jwt_bearer }', { method: 'jwt_bearer', clientId: 'shop', assertion: 'fresh' }],
    ['{ auth: jwt_spiffe, assertion: reused }', { assertion: 'reused' }],
    ['{ auth: attest_jwt_client_auth_dpop }', { method: 'attest_jwt_client_auth_dpop' }],
  ])('has the client %s', async (client, expected) => {
    const target = await targetOf(shop(SERVER.replace('{ auth: jwt_spiffe }', client)))
    expect(target?.identity?.server?.client).toMatchObject(expected)
  })

  it('has its audiences reserved though no target uses it', async () => {
    const other =
      '  - { name: other, issuer: "https://other.test", token_endpoint: "https://t.test/token" }\n'
    const book = await bookOf(shop(SERVER + other))
    const audiences = ['https://as.example.org/x', 'https://other.test', 'https://t.test', 'https://x.test']
    expect(audiences.map((audience) => book.isReserved(audience))).toEqual([true, true, true, false])
  })

  it.each([
    [
      'an unknown name',
      shop(SERVER, 'server: logn'),
      'identity.yaml:14: orders: no identity file has the server logn, did you mean "login"?',
    ],
    [
      'the same name twice',
      shop(`${SERVER}  - { name: login, issuer: "https://b.test" }\n`),
      'identity.yaml:13: the server login is there twice; first at identity.yaml:12',
    ],
    [
      'one issuer under two names',
      shop(`${SERVER}  - { name: b, issuer: "https://as.example.org" }\n`),
      'identity.yaml:13: a server of the issuer https://as.example.org is there twice; first at identity.yaml:12',
    ],
    [
      'one issuer by name and in a target',
      shop(SERVER, 'server: { issuer: "https://as.example.org/" }'),
      'identity.yaml:14: orders states the issuer https://as.example.org once more: say server: login, which is at identity.yaml:12',
    ],
    [
      'the name none',
      shop(SERVER.replace('name: login', 'name: none'), 'server: none'),
      'identity.yaml:12: servers[0].name: is none, which means no server',
    ],
    [
      'a client key without a client id',
      shop(SERVER.replace('jwt_spiffe', 'private_key_jwt')),
      'identity.yaml:12: servers[0].client.id: is missing: private_key_jwt names its client',
    ],
    [
      'a key that the method has no use for',
      shop(SERVER.replace('jwt_spiffe', 'tls_client_auth, key: node')),
      'identity.yaml:12: servers[0].client.key: goes with private_key_jwt only: tls_client_auth shows an SVID',
    ],
    [
      'plain HTTP',
      shop(SERVER.replace('https://', 'http://')),
      'identity.yaml:12: servers[0].issuer: "http://as.example.org": an authorization server speaks https',
    ],
    [
      'a resource that is never asked for',
      shop(SERVER, 'server: none\n    resource: "https://orders.example.org"'),
      'identity.yaml:14: orders has resource or scopes, which are never asked for: its server has no client',
    ],
    [
      'a WPT alone, which binds no token',
      shop(SERVER, 'server: login\n    binding: [wpt]'),
      'identity.yaml:14: orders: a WPT or signature binds no token: add dpop to binding, or set server: none',
    ],
    [
      'a signature alone, which binds no token',
      shop(SERVER, 'server: login\n    binding: [http-signature]'),
      'identity.yaml:14: orders: a WPT or signature binds no token: add dpop to binding, or set server: none',
    ],
    [
      'two proofs of one WIT',
      shop(SERVER, 'server: login\n    binding: [dpop, wpt, http-signature]'),
      'identity.yaml:14: orders: wpt and http-signature are two proofs for one WIT: leave one of them',
    ],
    [
      'scopes that are two in one',
      shop(SERVER, 'server: login\n    scopes: ["read write"]'),
      'identity.yaml:16: targets[0].scopes[0]: is not a scope (RFC 6749 s.3.3)',
    ],
  ])('is refused with %s', async (_what, files, message) => {
    expect(await problemsIn(files)).toEqual([message])
  })

  it("is refused with a node's own key where several nodes load the policy, and says what works", async () => {
    const files = shop(SERVER.replace('auth: jwt_spiffe', 'id: shop, auth: private_key_jwt'))
    const texts = Object.entries(files).map(([name, text]) => ({ file: `${name}.yaml`, text }))
    expect(await parsePolicy(texts, { ...context, nodes: 'one' })).toHaveProperty('book')
    expect(await parsePolicy(texts, { ...context, nodes: 'many' })).toMatchObject({
      problems: [
        {
          file: 'identity.yaml',
          line: 12,
          reason: 'client_key_not_shared',
          message: expect.stringMatching(/client shop .* use auth: tls_client_auth with the X\.509-SVID/),
        },
      ],
    })
    const mounted = texts.map(({ file, text }) => ({
      file,
      text: text.replace('private_key_jwt', 'private_key_jwt, key: { file: /k }'),
    }))
    expect(await parsePolicy(mounted, { ...context, nodes: 'many' })).toHaveProperty('book')
  })
})

describe('what becomes of long tokens', () => {
  it('is stated, and graded weak', async () => {
    const book = await bookOf(shop(SERVER, 'server: login\n    too_long: revoke'))
    expect(book.targets.get('orders')?.identity?.tooLong).toBe('revoke')
    expect(book.weaknesses.map(({ code, grade }) => `${code} ${grade}`)).toContain('too_long weak')
    expect((await bookOf(shop())).weaknesses.map(({ code }) => code)).not.toContain('too_long')
  })

  it.each([
    [`${WHERE}\n    too_long: revoke`, 'headers', 'is about tokens that the agent gets itself'],
    ['server: login\n    too_long: revoke', 'token', 'is not for tokens that applications hold'],
    ['server: login\n    too_long: revoke\n    binding: [bearer]', 'nothing', 'is not for bearer tokens'],
  ])('is refused with %s and custody: %s', async (target, custody, expected) => {
    const files = shop(SERVER, target)
    const identity = files.identity.replace('custody: headers', `custody: ${custody}`)
    expect(await problemsIn({ ...files, identity })).toContainEqual(
      expect.stringContaining(`orders: too_long: revoke ${expected}`),
    )
  })
})

describe('the metadata of a target', () => {
  const discovered = shop(SERVER, 'server: login\n    discover: true')
  const platform = (stated: string) => ({
    ...discovered,
    platform: discovered.platform.replace('origins: ["https://orders.example.org"]', stated),
  })

  it('is looked at when identity says so', async () => {
    expect((await targetOf(discovered))?.identity?.isDiscovered).toBe(true)
    expect((await targetOf(shop()))?.identity?.isDiscovered).toBe(false)
  })

  it.each([
    [
      shop(SERVER, `${WHERE}\n    discover: true`),
      'is looked at before the agent gets a token: state a server with a client',
    ],
    [
      platform('origins: ["http://localhost", "https://orders.example.org"]'),
      'wants an https origin with one port first in the origins of the target, not http://localhost',
    ],
    [
      platform('origins: ["https://localhost:*"]'),
      'wants an https origin with one port first in the origins of the target, not https://localhost:*',
    ],
    [
      platform('origins: ["https://orders.example.org"], via: sidecar'),
      'is asked for by the agent, and the target is reached via: sidecar',
    ],
  ])('cannot be looked at otherwise: %#', async (files, expected) => {
    expect(await problemsIn(files)).toContainEqual(
      expect.stringContaining(`orders: discover: true ${expected}`),
    )
  })
})

describe('client attestation', () => {
  const attested = SERVER.replace('jwt_spiffe', 'attest_jwt_client_auth_dpop')
  const textsOf = (files: Files) =>
    Object.entries(files).map(([name, text]) => ({ file: `${name}.yaml`, text }))

  it('is refused while the configuration has it off', async () => {
    const result = await parsePolicy(textsOf(shop(attested)), { ...context, attestation: false })
    expect(result).toMatchObject({
      problems: [
        {
          line: 12,
          message:
            'the server login has auth: attest_jwt_client_auth_dpop, which is off: set tokens.client_attestation: on, wit: on and authority.nodes: one in the configuration, or state another auth',
        },
      ],
    })
    expect(await parsePolicy(textsOf(shop(attested)), { ...context, attestation: true })).toHaveProperty(
      'book',
    )
    expect(await parsePolicy(textsOf(shop()), { ...context, attestation: false })).toHaveProperty('book')
  })

  it('goes with tokens that are bound by DPoP only', async () => {
    const files = shop(attested, 'server: login\n    binding: [wpt]')
    expect(await problemsIn(files)).toContain(
      'identity.yaml:14: orders: auth: attest_jwt_client_auth_dpop of its server goes with binding: [dpop] only',
    )
  })

  it('is not for those who are handed what attests: WIT-SVIDs', async () => {
    const files = shop(attested)
    const delivering = { ...files, identity: files.identity.replace('wit: false', 'wit: true') }
    expect(await problemsIn(delivering)).toEqual([
      expect.stringMatching(
        /^identity\.yaml:3: the entry web delivers WIT-SVIDs, which https:\/\/as\.example\.org takes as client credential/,
      ),
    ])
  })
})

describe('a target of a server', () => {
  it('asks for its resource and for each scope once', async () => {
    const target =
      'server: login\n    resource: "https://orders.example.org"\n    scopes: [read, write, read]'
    expect((await targetOf(shop(SERVER, target)))?.identity).toMatchObject({
      resource: 'https://orders.example.org',
      scopes: ['read', 'write'],
    })
  })

  it('is found by its name as a Host, in any case', async () => {
    const book = await bookOf()
    expect([book.targetNamed('orders')?.name, book.targetNamed('ORDERS')?.name]).toEqual(['orders', 'orders'])
    expect([book.targetNamed('order'), book.targetNamed('orders:80'), book.targetNamed('')]).toEqual([
      undefined,
      undefined,
      undefined,
    ])
  })

  const renamed = (files: Files, to: string): Files =>
    Object.fromEntries(
      Object.entries(files).map(([name, text]) => [name, text.replace(/name: orders\b/, `name: ${to}`)]),
    )

  it.each(['Orders', 'orders/v1', 'orders_v1', '10.0.0.7'])(
    'has no name %s where egress makes its requests, and may have it elsewhere',
    async (name) => {
      const held = { ...LAYERS, identity: LAYERS.identity.replace('custody: headers', 'custody: nothing') }
      const message = expect.stringMatching(/^identity\.yaml:1[23]: the name ".*" cannot stand as a Host/)
      expect(await problemsIn(renamed(held, name))).toEqual([message])
      expect(await problemsIn(renamed(shop(), name))).toEqual([
        expect.stringContaining('cannot stand as a Host'),
      ])
      expect(await problemsIn(renamed(LAYERS, name))).toEqual([])
    },
  )
})

describe('what an entry delivers', () => {
  const JWT = 'jwt: true, wit: false }\n    audiences: ["https://as.example.org/token"] #'
  const X509 = ['x509: false', 'x509: true'] as const
  const withX509 = (files: Layers, more = '') => ({
    ...files,
    identity: files.identity.replace(...X509).replace('wit: false }\n', `wit: false }\n${more}`),
  })
  const tls = SERVER.replace('jwt_spiffe', 'tls_client_auth')

  it.each(['jwt_spiffe', 'jwt_bearer'])(
    'may not be what the server of its target takes: %s',
    async (auth) => {
      const files = shop(SERVER.replace('jwt_spiffe', auth), 'server: login', JWT)
      expect(await problemsIn(files)).toEqual([
        `identity.yaml:3: the entry web delivers JWT-SVIDs for https://as.example.org/token, which https://as.example.org takes as client credential (${auth}): custody of orders could be bypassed; take the audience out of audiences, or let the server have another auth, or accept it with accepted_at: ["https://as.example.org"]`,
      ])
    },
  )

  it('may not be the X.509-SVID that its server knows a client by', async () => {
    expect(await problemsIn(withX509(shop(tls)))).toEqual([
      'identity.yaml:3: the entry web delivers X.509-SVIDs, which https://as.example.org takes as client credential (tls_client_auth): custody of orders could be bypassed; set deliver.x509: false, or let the server have another auth, or accept it with accepted_at: ["https://as.example.org"]',
    ])
  })

  it('may be accepted there where the entry says so, and is graded weak', async () => {
    const book = await bookOf(withX509(shop(tls), '    accepted_at: ["https://as.example.org"]\n'))
    expect(book.weaknesses.map(({ code, grade }) => `${code} ${grade}`)).toEqual([
      'deliver weak',
      'accepted_at weak',
    ])
    expect(
      await problemsIn(withX509(shop(tls), '    accepted_at: ["https://other.example.org"]\n')),
    ).toHaveLength(1)
  })

  it.each([
    ['a JWT-SVID for other audiences', shop(SERVER, 'server: login', 'jwt: true')],
    ['an X.509-SVID where the server takes JWTs', withX509(shop())],
    [
      'both where the server knows a key',
      withX509(
        shop(SERVER.replace('auth: jwt_spiffe', 'id: a, auth: private_key_jwt'), 'server: login', JWT),
      ),
    ],
    [
      'an X.509-SVID to others than the callers',
      {
        ...withX509(shop(tls)),
        application: LAYERS.application.replace('example.org/web', 'example.org/batch'),
      },
    ],
  ])('is no concern of the server when it is %s', async (_what, files) => {
    expect(await problemsIn(files)).toEqual([])
  })

  it('is found through a prefix of callers too', async () => {
    const application = LAYERS.application.replace(
      '[spiffe://example.org/web]',
      '["spiffe://example.org/**"]',
    )
    expect(await problemsIn({ ...withX509(shop(tls)), application })).toHaveLength(1)
  })
})

describe('how platform reaches', () => {
  const placed = (members: string) => ({
    ...LAYERS,
    platform: LAYERS.platform.replace('"] }', `"], ${members} }`),
  })
  const reached = (server: string) => ({ ...LAYERS, platform: `${LAYERS.platform}servers:\n  - ${server}\n` })

  it.each([
    ['addresses: []', { trust: 'system', peerId: undefined, serverName: undefined }],
    ['tls: {}', { trust: 'system', peerId: undefined, serverName: undefined }],
    ['tls: { server_name: orders.internal }', { trust: 'system', serverName: 'orders.internal' }],
    ['tls: { trust: { file: ca.pem } }', { trust: { file: resolve('ca.pem') } }],
    [
      'tls: { trust: spiffe, peer_id: "spiffe://example.org/orders" }',
      { trust: 'spiffe', peerId: 'spiffe://example.org/orders' },
    ],
  ])('a target with %s', async (members, expected) => {
    expect((await targetOf(placed(members)))?.platform?.tls).toMatchObject(expected)
  })

  it('an authorization server, with its own trust and addresses, and any other by the system', async () => {
    const book = await bookOf(
      reached(
        '{ issuer: "https://as.example.org", tls: { trust: { file: /ca.pem } }, addresses: [127.0.0.1] }',
      ),
    )
    expect(book.serverTls('https://as.example.org')).toMatchObject({
      tls: { trust: { file: '/ca.pem' } },
      addresses: ['127.0.0.1'],
    })
    expect(book.serverTls('https://as.example.org/')).toEqual({
      tls: { trust: 'system', peerId: undefined, serverName: undefined },
      addresses: [],
    })
  })

  it.each([
    [
      'trust: none',
      'platform.yaml:3: targets[0].tls.trust: is "none", which is none of the forms it may have',
    ],
    ['trust: spiffe', 'platform.yaml:3: targets[0].tls: trust: spiffe and peer_id go together'],
    [
      'peer_id: "spiffe://example.org/orders"',
      'platform.yaml:3: targets[0].tls: trust: spiffe and peer_id go together',
    ],
    [
      'trust: spiffe, peer_id: "spiffe://other.org/orders"',
      'platform.yaml:3: the peer_id spiffe://other.org/orders is outside the trust domain: wanted spiffe://example.org/…',
    ],
    [
      'server_name: 10.0.0.7',
      'platform.yaml:3: targets[0].tls.server_name: "10.0.0.7" is not a host name in lower case',
    ],
    ['verify: false', 'platform.yaml:3: unknown key "verify" in targets[0].tls'],
  ])('no target with tls: { %s }', async (tls, message) => {
    expect(await problemsIn(placed(`tls: { ${tls} }`))).toEqual([message])
  })

  it('no server twice, and notes one that identity does not have', async () => {
    const twice = reached('{ issuer: "https://as.example.org" }\n  - { issuer: "https://as.example.org" }')
    expect(await problemsIn(twice)).toEqual([
      'platform.yaml:6: layer platform, a server of the issuer https://as.example.org is there twice; first at platform.yaml:5',
    ])
    expect(notesOn(await bookOf(reached('{ issuer: "https://b.test" }')))).toEqual([
      'platform states how to reach https://b.test, which no identity file names',
    ])
  })
})

describe('an exception for bearer tokens', () => {
  const BEARER = 'server: login\n    binding: [bearer]'
  const EXCEPTION = '{ target: orders, binding: bearer, approver: ann, until: 2030-12-31 }'
  const excepted = (exception = EXCEPTION, max = '', target = BEARER, custody = 'nothing') => {
    const files = shop(SERVER, target)
    return {
      ...files,
      identity: files.identity
        .replace('custody: headers', `custody: ${custody}`)
        .replace('    max_ttl: 10m\n', max),
      ...(exception === '' ? {} : { security: `layer: security\nexceptions:\n  - ${exception}\n` }),
    }
  }

  it('holds for short tokens until its end', async () => {
    let now = context.now()
    const book = await bookOf(excepted(), { now: () => now })
    expect(book.targets.get('orders')?.identity).toMatchObject({ binding: ['bearer'], maxTtl: 120 })
    expect(book.exceptionOf('orders')).toMatchObject({ approver: 'ann', maxTtl: 120 })
    expect(book.exceptionOf('stock')).toBeUndefined()
    now = Date.parse('2031-01-01T00:00:00Z') / 1000
    expect(book.exceptionOf('orders')).toBeUndefined()
  })

  it.each([
    ['', 'bearer weak orders'],
    [', max_ttl: 120s', 'bearer weak orders'],
    [', max_ttl: 121s', 'bearer insecure orders'],
  ])('is shown by its grade with %j', async (more, expected) => {
    const book = await bookOf(excepted(EXCEPTION.replace(' }', `${more} }`)))
    expect(book.weaknesses.map(({ code, grade, subject }) => `${code} ${grade} ${subject}`)).toEqual([
      expected,
    ])
  })

  it.each([
    ['no exception', excepted(''), 'wants an exception for orders in a security policy file'],
    [
      'an exception for another',
      excepted(EXCEPTION.replace('orders', 'stock')),
      'wants an exception for orders',
    ],
    ['custody headers', excepted(EXCEPTION, '', BEARER, 'headers'), 'set custody: nothing'],
    ['custody token', excepted(EXCEPTION, '', BEARER, 'token'), 'set custody: nothing'],
    [
      'another binding beside it',
      excepted(EXCEPTION, '', BEARER.replace(']', ', dpop]')),
      '[bearer] stands alone',
    ],
    ['no server', excepted(EXCEPTION, '', BEARER.replace('login', 'none')), 'state a server with a client'],
    [
      'a longer life than security accepts',
      excepted(EXCEPTION, '    max_ttl: 121s\n'),
      'orders: max_ttl is over the 120s that security accepts at security.yaml:3',
    ],
  ])('is refused with %s', async (_what, files, message) => {
    const found = await problemsIn(files)
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(message)
  })

  it.each([
    ['approver: ann, ', ''],
    [', until: 2030-12-31', ''],
    ['binding: bearer', 'binding: none'],
  ])('is refused without %s', async (from, to) => {
    expect(await problemsIn(excepted(EXCEPTION.replace(from, to)))).not.toEqual([])
  })

  it('takes a longer life where security names it', async () => {
    const files = excepted(EXCEPTION.replace(' }', ', max_ttl: 10m }'), '    max_ttl: 10m\n')
    expect((await targetOf(files))?.identity?.maxTtl).toBe(600)
  })

  it('stands once for a target, and is noted when nothing uses it', async () => {
    expect(await problemsIn(excepted(`${EXCEPTION}\n  - ${EXCEPTION}`))).toEqual([
      'security.yaml:4: an exception for orders is there twice; first at security.yaml:3',
    ])
    const security = `layer: security\nexceptions:\n  - ${EXCEPTION}\n`
    expect(notesOn(await bookOf({ ...LAYERS, security }))).toEqual([
      'the exception for orders is not used: its binding is not bearer',
    ])
  })
})
