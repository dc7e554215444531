/** SDS over the real workload socket: what a proxy is given under which name, when, and when again. */
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Live } from '../../src/base/live.ts'
import type { FederatedBundles } from '../../src/issue/trusted-bundles.ts'
import { type Bundle, formatBundle } from '../../src/spiffe/bundle.ts'
import type { TrustDomain } from '../../src/spiffe/id.ts'
import { type AgentOptions, startAgent, type TestAgent } from '../support/agent.ts'
import { startBuiltAgent } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import { makeAuthority } from '../support/certificates.ts'
import { ManualClock } from '../support/clock.ts'
import { type Identity, identityPolicy, idOf, TRUST_DOMAIN } from '../support/identities.ts'
import { first, RawClient } from '../support/raw-client.ts'
import { fetchSecrets, openSds, SDS, SECRET_TYPE, secretsIn } from '../support/sds.ts'
import { until } from '../support/until.ts'

const WEB: Identity = { path: 'web' }
const SHOP: Identity = { path: 'shop' }
const KEYLESS: Identity = { path: 'keyless', deliver: { x509: false } }
const OTHERS: Identity = { path: 'others', uid: 4_000_000 }
const OWN = `spiffe://${TRUST_DOMAIN}`
const MINUTE = 60_000

const withIdentities = (identities: readonly Identity[], options: AgentOptions = {}) =>
  startAgent({ ...options, policy: identityPolicy(identities) })

/** What an agent answered up to now to everything that was sent: a later answer would come before that of FetchSecrets. */
async function settled(client: RawClient): Promise<void> {
  await fetchSecrets(client, ['ROOTCA'])
}

async function countOf(agent: TestAgent, outcome: string): Promise<number> {
  const found = new RegExp(`^holdfast_sds_total\\{outcome="${outcome}"\\} (\\d+)$`, 'm').exec(
    await agent.metrics.render(),
  )
  return Number(found?.[1] ?? 0)
}

describe('the names of secrets', () => {
  it.each([
    ['default', [{ name: 'default', spiffeId: idOf('web') }]],
    [idOf('shop'), [{ name: idOf('shop'), spiffeId: idOf('shop') }]],
    ['ROOTCA', [{ name: 'ROOTCA', trustDomains: { [TRUST_DOMAIN]: 1 } }]],
    ['ALL', [{ name: 'ALL', trustDomains: { [TRUST_DOMAIN]: 1 } }]],
    [OWN, [{ name: OWN, trustDomains: { [TRUST_DOMAIN]: 1 } }]],
  ])('%s leads to one secret, in every method', async (name, expected) => {
    await using agent = await withIdentities([WEB, SHOP])
    using client = new RawClient(agent.socket)
    const shaped = expected.map((each) => expect.objectContaining(each))
    expect(secretsIn(await fetchSecrets(client, [name]))).toEqual(shaped)
    expect(secretsIn(await openSds(client, [name]).message(1))).toEqual(shaped)
    const delta = client.open(`${SDS}/DeltaSecrets`, undefined, [])
    delta.send({ node: {}, resource_names_subscribe: [name], type_url: SECRET_TYPE })
    expect(secretsIn(await delta.message(1))).toEqual(shaped)
  })

  it('give a key that belongs to the certificate', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const [secret] = secretsIn(await fetchSecrets(client, ['default']))
    const key = createPublicKey(createPrivateKey(secret?.key ?? ''))
    expect(secret?.chain?.[0]?.publicKey.equals(key)).toBe(true)
  })

  it('may be left out: everything that the caller may have', async () => {
    await using agent = await withIdentities([WEB, KEYLESS, SHOP, OTHERS])
    using client = new RawClient(agent.socket)
    const names = secretsIn(await openSds(client, []).message(1)).map(({ name }) => name)
    expect(names).toEqual([idOf('web'), idOf('shop'), OWN])
  })

  it('may be mixed, and one that leads nowhere hinders no other', async () => {
    await using agent = await withIdentities([KEYLESS, WEB])
    using client = new RawClient(agent.socket)
    const names = ['file-root:system', idOf('keyless'), 'ROOTCA', idOf('none'), 'default', 'ALL', OWN]
    const found = secretsIn(await openSds(client, names).message(1))
    expect(found.map(({ name }) => name)).toEqual(['ROOTCA', 'default', 'ALL', OWN])
    expect(found[1]?.spiffeId).toBe(idOf('web'))
  })

  it('are in the audit where they are not delivered, beside others that are, and once', async () => {
    await using agent = await withIdentities([KEYLESS, WEB])
    using client = new RawClient(agent.socket)
    const denied = () => agent.records.filter(({ reason }) => reason === 'delivery_denied')
    // Records are written some milliseconds after the message has left.
    const delivered = (count: number) =>
      until('the records', () => {
        const found = agent.records.filter(({ event, allowed }) => event === 'deliver.x509' && allowed)
        return found.length === count
      })
    const stream = openSds(client, [idOf('keyless'), 'default', 'ROOTCA'])
    await stream.message(1)
    await delivered(1)
    expect(denied()).toEqual([
      expect.objectContaining({ event: 'deliver.x509', allowed: false, detail: 'sds' }),
    ])
    await agent.setPolicy(identityPolicy([KEYLESS, { ...WEB, dnsNames: ['web.test'] }]))
    await stream.message(2)
    await delivered(2)
    expect(denied()).toHaveLength(1)
    await fetchSecrets(client, [idOf('keyless'), 'ROOTCA'])
    await until('the second refusal', () => denied().length === 2)
  })

  it.each([
    ['a name of nobody', ['file-root:system'], 'NOT_FOUND', 'secret_unknown'],
    ['an identity elsewhere', ['spiffe://elsewhere.test/web'], 'NOT_FOUND', 'secret_unknown'],
    ['what is not delivered', [idOf('keyless')], 'PERMISSION_DENIED', 'delivery_denied'],
  ])('are refused with a reason when they can lead to nothing: %s', async (_what, names, code, reason) => {
    await using agent = await withIdentities([WEB, KEYLESS])
    using client = new RawClient(agent.socket)
    const refused = expect.objectContaining({ code, info: expect.objectContaining({ reason }) })
    expect(await openSds(client, names).end()).toEqual(refused)
    expect(await fetchSecrets(client, names)).toEqual(refused)
  })

  it('are answered without the security header, which SPIFFE wants elsewhere, and with it', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    for (const header of [false, true])
      expect(secretsIn(await fetchSecrets(client, ['default'], header))).toHaveLength(1)
  })
})

describe('trust', () => {
  const federated = () =>
    new Live<FederatedBundles>(new Map(['b.test', 'a.test', 'c.test'].map((name) => foreignBundle(name))))

  it('covers what the entries federate with, sorted, and nothing else', async () => {
    await using agent = await withIdentities([{ ...WEB, federatesWith: ['b.test', 'a.test', 'x.test'] }], {
      federated: federated(),
    })
    using client = new RawClient(agent.socket)
    const [all, root, named] = secretsIn(
      await fetchSecrets(client, ['ALL', 'ROOTCA', 'spiffe://a.test', 'spiffe://c.test', 'spiffe://x.test']),
    )
    expect(Object.entries(all?.trustDomains ?? {})).toEqual([
      ['a.test', 1],
      ['b.test', 1],
      [TRUST_DOMAIN, 1],
    ])
    expect(root?.trustDomains).toEqual({ [TRUST_DOMAIN]: 1 })
    expect(named).toEqual({ name: 'spiffe://a.test', trustDomains: { 'a.test': 1 } })
  })

  it('lets ROOTCA mean all bundles, by the configuration and by the entry', async () => {
    const identity = { ...WEB, federatesWith: ['a.test'] }
    const all = { 'a.test': 1, [TRUST_DOMAIN]: 1 }
    const config: AgentOptions['config'] = (given) => ({ ...given, sds: { ...given.sds, rootca: 'all' } })
    for (const [over, options, expected] of [
      [{}, { config }, all],
      [{ sds: '{ rootca: all }' }, {}, all],
      [{ sds: '{ rootca: own }' }, { config }, { [TRUST_DOMAIN]: 1 }],
    ] as const) {
      await using agent = await withIdentities([{ ...identity, ...over }], {
        ...options,
        federated: federated(),
      })
      using client = new RawClient(agent.socket)
      expect(secretsIn(await fetchSecrets(client, ['ROOTCA']))[0]?.trustDomains).toEqual(expected)
    }
  })

  it('is a plain pool of the own trust domain where policy or the node says so', async () => {
    const identity = { ...WEB, federatesWith: ['a.test'] }
    await using agent = await withIdentities([identity], { federated: federated() })
    using client = new RawClient(agent.socket)
    for (const flag of [{ bool_value: true }, { string_value: 'true' }]) {
      const node = { metadata: { fields: { disable_spiffe_cert_validation: flag } } }
      expect(secretsIn(await openSds(client, ['ALL'], node).message(1))).toEqual([{ name: 'ALL', pool: 1 }])
    }
    await agent.setPolicy(identityPolicy([{ ...identity, sds: '{ validator: trusted_ca }' }]))
    expect(secretsIn(await fetchSecrets(client, ['ROOTCA']))).toEqual([{ name: 'ROOTCA', pool: 1 }])
  })

  it('is the same in the Workload API', async () => {
    await using agent = await withIdentities([{ ...WEB, federatesWith: ['a.test'] }], {
      federated: federated(),
    })
    using client = new RawClient(agent.socket)
    const api = 'SpiffeWorkloadAPI'
    const svids = await first(client, `${api}/FetchX509SVID`)
    expect(Object.keys(svids.federated_bundles)).toEqual(['spiffe://a.test'])
    for (const kind of ['X509', 'JWT']) {
      const { bundles } = await first(client, `${api}/Fetch${kind}Bundles`)
      expect(Object.keys(bundles).sort()).toEqual(['spiffe://a.test', OWN])
    }
  })

  it('changes when a federated bundle does, for who has it and nobody else', async () => {
    const bundles = federated()
    await using agent = await withIdentities([{ ...WEB, federatesWith: ['a.test'] }], { federated: bundles })
    using client = new RawClient(agent.socket)
    const all = openSds(client, ['ALL'])
    const own = openSds(client, ['ROOTCA'])
    await Promise.all([all.message(1), own.message(1)])
    bundles.set(new Map([foreignBundle('a.test', 2)]))
    expect(secretsIn(await all.message(2))[0]?.trustDomains).toEqual({ 'a.test': 2, [TRUST_DOMAIN]: 1 })
    await settled(client)
    expect(own.messages).toHaveLength(1)
  })
})

describe('the bundles of federation.directory', () => {
  it('reach the streams that are open when a file is written, changed and taken away', async () => {
    const base = mkdtempSync(join(tmpdir(), 'holdfast-federation-'))
    using _base = { [Symbol.dispose]: () => rmSync(base, { recursive: true, force: true }) }
    const put = (count: number) => {
      const text = formatBundle(foreignBundle('a.test', count)[1])
      writeFileSync(join(base, 'next'), text, { mode: 0o644 })
      renameSync(join(base, 'next'), join(base, 'bundles', 'a.test.json'))
    }
    for (const name of ['bundles', 'policy']) mkdirSync(join(base, name))
    for (const [name, text] of Object.entries(identityPolicy([{ ...WEB, federatesWith: ['a.test'] }])))
      writeFileSync(join(base, 'policy', name), text)
    writeFileSync(
      join(base, 'holdfast.yaml'),
      `trust_domain: ${TRUST_DOMAIN}\npolicy: { files: [policy] }\nfederation: { directory: ${join(base, 'bundles')} }\n`,
    )
    put(1)
    await using agent = await startBuiltAgent({
      args: ['--config', join(base, 'holdfast.yaml')],
      dir: join(base, 'run'),
    })
    using client = new RawClient(agent.socket)
    const [all, own] = [openSds(client, ['ALL']), openSds(client, ['ROOTCA'])]
    const trustOf = async (count: number) => secretsIn(await all.message(count))[0]?.trustDomains
    expect(await trustOf(1)).toEqual({ 'a.test': 1, [TRUST_DOMAIN]: 1 })
    await own.message(1)
    put(2)
    expect(await trustOf(2)).toEqual({ 'a.test': 2, [TRUST_DOMAIN]: 1 })
    rmSync(join(base, 'bundles', 'a.test.json'))
    expect(await trustOf(3)).toEqual({ [TRUST_DOMAIN]: 1 })
    await settled(client)
    expect([own.messages.length, own.ending]).toEqual([1, undefined])
  })
})

describe('a stream', () => {
  it('is sent nothing for an ACK, a NACK or an old nonce', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const stream = openSds(client, ['default'])
    await stream.message(1)
    stream.ack()
    stream.ack()
    stream.ack('late')
    stream.send({ resource_names: ['ROOTCA'], type_url: SECRET_TYPE, response_nonce: 'old' })
    await settled(client)
    expect(stream.messages).toHaveLength(1)
    expect(await countOf(agent, 'ack')).toBe(1)
    expect(await countOf(agent, 'nack')).toBe(0)
  })

  it('that refuses a secret is counted once, logged, and left alone until something changes', async () => {
    const clock = new ManualClock()
    await using agent = await withIdentities([WEB], { clock })
    using client = new RawClient(agent.socket)
    const stream = openSds(client, ['default'])
    await stream.message(1)
    for (let times = 0; times < 100; times += 1) stream.ack(`bad key\n${'x'.repeat(5_000)}`)
    await settled(client)
    expect(stream.messages).toHaveLength(1)
    expect(await countOf(agent, 'nack')).toBe(1)
    clock.advance(34 * MINUTE)
    await stream.message(2)
    stream.ack()
    await until('the ack', async () => (await countOf(agent, 'ack')) === 1)
  })

  it('is sent what has changed, before it ends, and nothing else', async () => {
    const clock = new ManualClock()
    await using agent = await withIdentities([WEB], { clock })
    using client = new RawClient(agent.socket)
    const stream = openSds(client, ['default', 'ROOTCA'])
    const before = await stream.message(1)
    expect(secretsIn(before).map(({ name }) => name)).toEqual(['default', 'ROOTCA'])
    clock.advance(20 * MINUTE)
    await settled(client)
    expect(stream.messages).toHaveLength(1)
    clock.advance(14 * MINUTE)
    const after = await stream.message(2)
    expect(secretsIn(after).map(({ name }) => name)).toEqual(['default'])
    const serialOf = (response: typeof before) => secretsIn(response)[0]?.chain?.[0]?.serialNumber
    expect(serialOf(after)).not.toBe(serialOf(before))
    expect(after.nonce).not.toBe(before.nonce)
    expect(after.version_info).not.toBe(before.version_info)
  })

  it('that is opened again is answered, whatever version it says it has', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const { version_info } = await openSds(client, ['default']).message(1)
    const again = client.open(`${SDS}/StreamSecrets`, undefined, [])
    again.send({
      version_info,
      resource_names: ['default'],
      type_url: SECRET_TYPE,
      response_nonce: 'of before',
    })
    expect((await again.message(1)).version_info).toBe(version_info)
  })

  it('that asks for more is sent what it lacks', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const stream = openSds(client, ['default'])
    await stream.message(1)
    stream.ask('default', 'ROOTCA')
    expect(secretsIn(await stream.message(2)).map(({ name }) => name)).toEqual(['ROOTCA'])
    stream.ask('ROOTCA')
    stream.ask('ROOTCA', 'default')
    expect(secretsIn(await stream.message(3)).map(({ name }) => name)).toEqual(['default'])
  })

  it('goes on with what is left when a key is no longer delivered, and ends when nothing is', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const [both, key] = [openSds(client, ['default', 'ROOTCA']), openSds(client, ['default'])]
    await Promise.all([both.message(1), key.message(1)])
    await agent.setPolicy(identityPolicy([{ ...WEB, deliver: { x509: false } }]))
    expect(await key.end()).toMatchObject({ code: 'PERMISSION_DENIED', info: { reason: 'delivery_denied' } })
    both.ask('ALL', 'default')
    expect(secretsIn(await both.message(2)).map(({ name }) => name)).toEqual(['ALL'])
    expect(both.ending).toBeUndefined()
  })

  it('of an identity that is withdrawn ends with the reason', async () => {
    await using agent = await withIdentities([WEB, SHOP])
    using client = new RawClient(agent.socket)
    const [web, shop] = [openSds(client, [idOf('web')]), openSds(client, [idOf('shop')])]
    await Promise.all([web.message(1), shop.message(1)])
    await agent.setPolicy(identityPolicy([WEB]))
    expect(await shop.end()).toMatchObject({ code: 'PERMISSION_DENIED', info: { reason: 'no_identity' } })
    await settled(client)
    expect([web.messages.length, web.ending]).toEqual([1, undefined])
  })
})

describe('an identity that an operator revokes', () => {
  it('ends its streams with the reason, and is refused again', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const stream = openSds(client, ['default'])
    await stream.message(1)
    const body = { spiffe_id: idOf('web') }
    expect((await call(agent.adminSocket, 'POST', '/v1/revoke', { body })).status).toBe(200)
    expect(await stream.end()).toMatchObject({ code: 'PERMISSION_DENIED', info: { reason: 'revoked' } })
    using later = new RawClient(agent.socket)
    expect(await openSds(later, ['default']).end()).toMatchObject({ info: { reason: 'revoked' } })
  })
})

describe('a caller without an entry', () => {
  it('waits, and is answered the moment it has one', async () => {
    await using agent = await withIdentities([OTHERS])
    using client = new RawClient(agent.socket)
    const streams = ['default', 'ROOTCA', idOf('web')].map((name) => openSds(client, [name]))
    const delta = client.open(`${SDS}/DeltaSecrets`, undefined, [])
    delta.send({ node: {}, resource_names_subscribe: ['default'], type_url: SECRET_TYPE })
    await until('four waiting', async () => /^holdfast_sds_waiting 4$/m.test(await agent.metrics.render()))
    await agent.setPolicy(identityPolicy([WEB]))
    for (const stream of [...streams, delta]) expect(secretsIn(await stream.message(1))).toHaveLength(1)
    expect(await agent.metrics.render()).toMatch(/^holdfast_sds_waiting 0$/m)
  })

  it('waits for an identity that it asks for by name beside those that it has', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const stream = openSds(client, [idOf('shop')])
    await settled(client)
    expect([stream.messages, stream.ending]).toEqual([[], undefined])
    await agent.setPolicy(identityPolicy([WEB, SHOP]))
    expect(secretsIn(await stream.message(1))[0]?.spiffeId).toBe(idOf('shop'))
  })

  it('waits for so long only', async () => {
    const clock = new ManualClock()
    await using agent = await withIdentities([OTHERS], { clock })
    using client = new RawClient(agent.socket)
    const stream = openSds(client, ['default'])
    await until('it to wait', async () => /^holdfast_sds_waiting 1$/m.test(await agent.metrics.render()))
    clock.advance(10 * MINUTE)
    expect(await stream.end()).toMatchObject({ code: 'PERMISSION_DENIED', info: { reason: 'no_identity' } })
    expect(await agent.metrics.render()).toMatch(/^holdfast_sds_waiting 0$/m)
  })

  it('may have so many streams waiting only', async () => {
    await using agent = await withIdentities([OTHERS], {
      config: (config) => ({ ...config, sds: { ...config.sds, waitingPerUid: 2 } }),
    })
    using client = new RawClient(agent.socket)
    const waiting = [openSds(client, ['default']), openSds(client, ['ROOTCA'])]
    await until('two waiting', async () => /^holdfast_sds_waiting 2$/m.test(await agent.metrics.render()))
    expect(await openSds(client, ['default']).end()).toMatchObject({ code: 'RESOURCE_EXHAUSTED' })
    waiting[0]?.cancel()
    await until('one waiting', async () => /^holdfast_sds_waiting 1$/m.test(await agent.metrics.render()))
    const next = openSds(client, ['default'])
    await until('two again', async () => /^holdfast_sds_waiting 2$/m.test(await agent.metrics.render()))
    expect(next.ending).toBeUndefined()
  })
})

function foreignBundle(name: string, count = 1): readonly [TrustDomain, Bundle] {
  const trustDomain = name as TrustDomain
  const x509Authorities = Array.from({ length: count }, () => makeAuthority().der)
  const none = { jwtAuthorities: new Map(), witAuthorities: new Map() }
  return [trustDomain, { trustDomain, x509Authorities, ...none, sequence: 1n, refreshHintSeconds: 60 }]
}
