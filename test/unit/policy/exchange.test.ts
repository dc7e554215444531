/** `exchange` and `txn_token` in policy: what is read, and what cannot stand together. */
import { describe, expect, it } from 'vitest'
import { parsePolicy } from '../../../src/policy/load.ts'
import { bookOf, context, type Files, LAYERS, problemsIn } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'
const RULE = '{ subjects: ["https://login.example.org"] }'
const SERVERS = [
  '  - { name: own, issuer: "https://as.example.org", client: { auth: jwt_spiffe } }\n',
  '  - { name: home, issuer: "https://login.example.org", client: { auth: jwt_spiffe } }\n',
  '  - { name: mute, issuer: "https://mute.example.org" }\n',
].join('')

const shop = (exchange = RULE, server = 'server: own', more = ''): Files => ({
  ...LAYERS,
  identity: LAYERS.identity
    .replace(WHERE, `${server}\n    exchange: ${exchange}${more}`)
    .replace('targets:', `servers:\n${SERVERS}targets:`),
})

const identityOf = async (files: Files) => (await bookOf(files)).targets.get('orders')?.identity

describe('exchange', () => {
  it('says whose tokens become one for the target, and how', async () => {
    expect((await identityOf(shop()))?.exchange).toEqual({
      subjects: ['https://login.example.org'],
      audiences: [],
      isRequired: true,
      subjectType: 'access_token',
      hasActor: false,
      via: undefined,
    })
    const full =
      '{ subjects: ["https://login.example.org"], audiences: [web], subject: optional, subject_type: jwt, actor: jwt_svid, via: home }'
    expect((await identityOf(shop(full)))?.exchange).toMatchObject({
      audiences: ['web'],
      isRequired: false,
      subjectType: 'jwt',
      hasActor: true,
      via: { name: 'home', issuer: 'https://login.example.org' },
    })
  })

  const via = (name: string) => shop(RULE.replace(' }', `, via: ${name} }`))
  it.each([
    ['no server', shop(RULE, 'server: none'), 'orders: exchange wants a server with a client'],
    ['a server without client', shop(RULE, 'server: mute'), 'orders: exchange wants a server with a client'],
    ['a server stated in place', shop(RULE, WHERE), 'orders: exchange wants a server with a client'],
    [
      'an unknown first server',
      via('hom'),
      'orders: no identity file has the server hom, which exchange.via names',
    ],
    [
      'a first server without client',
      via('mute'),
      'orders: the server mute, which exchange.via names, has no client',
    ],
    ['its own server first', via('own'), 'orders: exchange.via is the server of the target: leave it out'],
    [
      'bearer tokens',
      shop(RULE, 'server: own', '\n    binding: [bearer]'),
      'bound to the key of the workload: bearer is not',
    ],
  ])('is refused with %s', async (_what, files, message) => {
    expect((await problemsIn(files)).join('\n')).toContain(message)
  })

  it('is refused with an actor where several nodes have no JWT-SVIDs', async () => {
    const files = shop(RULE.replace(' }', ', actor: jwt_svid }'))
    const texts = Object.entries(files).map(([name, text]) => ({ file: `${name}.yaml`, text }))
    expect(await problemsIn(files)).toEqual([])
    expect(JSON.stringify(await parsePolicy(texts, { ...context, nodes: 'many' }))).toContain(
      'orders: actor: jwt_svid wants JWT-SVIDs',
    )
  })

  it.each([
    ['without issuers', '{ subjects: [] }'],
    ['with an issuer over http', '{ subjects: ["http://login.example.org"] }'],
    ['with an unknown member', RULE.replace(' }', ', subjekt: optional }')],
  ])('is refused %s', async (_what, rule) => {
    expect(await problemsIn(shop(rule))).toHaveLength(1)
  })

  it('is a way around custody where the first server takes what is delivered', async () => {
    const files = via('home')
    const delivering = {
      ...files,
      identity: String(files['identity']).replace(
        'jwt: false, wit: false }',
        'jwt: true, wit: false }\n    audiences: ["https://login.example.org"]',
      ),
    }
    expect((await problemsIn(delivering)).join()).toContain('https://login.example.org')
    expect(await problemsIn(files)).toEqual([])
  })
})

describe('txn_token', () => {
  it('is off unless policy turns it on', async () => {
    expect((await identityOf(LAYERS))?.passesTransaction).toBe(false)
    expect((await identityOf(shop(RULE, 'server: own', '\n    txn_token: true')))?.passesTransaction).toBe(
      true,
    )
  })
})
