/** X.509-SVIDs from messages: what is taken, what is refused, what survives a bad update and what does not. */
import { describe, expect, it } from 'vitest'
import type { Fault } from '../../../src/base/fault.ts'
import { CODE } from '../../../src/client/grpc.ts'
import { x509Source } from '../../../src/client/x509-source.ts'
import { parseX509Context } from '../../../src/client/x509-svid.ts'
import {
  altNames,
  ecPair,
  LEAF_ID,
  makeAuthority,
  makeLeaf,
  NOW,
  uriName,
} from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeAgent, tick } from '../../support/fake-agent.ts'
import { faultOf } from '../../support/faults.ts'

const root = makeAuthority()
const intermediate = makeAuthority({ signedBy: root, commonName: 'intermediate' })
const pair = ecPair()
const pkcs8 = pair.privateKey.export({ format: 'der', type: 'pkcs8' })
const leaf = makeLeaf(intermediate, { pair })
const chain = Buffer.concat([leaf, intermediate.der])

const svid = (over: Record<string, unknown> = {}) => ({
  spiffe_id: LEAF_ID,
  x509_svid: chain,
  x509_svid_key: pkcs8,
  bundle: root.der,
  ...over,
})
const message = (over: Record<string, unknown> = {}) => ({ svids: [svid(over)] })

describe('a message', () => {
  it('becomes certificates, key, bundle and expiry', () => {
    const { svids, bundles } = parseX509Context({
      svids: [svid({ hint: 'web' })],
      federated_bundles: { 'spiffe://other.test': root.der },
    })
    expect(svids[0]).toMatchObject({ spiffeId: LEAF_ID, hint: 'web', expiresAt: NOW + 3600 })
    expect(svids[0]?.certificates.map(({ raw }) => raw)).toEqual([leaf, intermediate.der])
    expect([...bundles.keys()]).toEqual(['example.org', 'other.test'])
  })

  it('counts only the first of two SVIDs with one hint', () => {
    const { svids } = parseX509Context({ svids: [svid({ hint: 'x' }), svid({ hint: 'x' }), svid(), svid()] })
    expect(svids.map(({ hint }) => hint)).toEqual(['x', '', ''])
  })

  it.each([
    ['no SVID', {}, 'svid_invalid: the message holds no X509-SVID'],
    ['no certificate', message({ x509_svid: Buffer.alloc(0) }), 'svid_invalid: a certificate is missing'],
    ['no bundle', message({ bundle: undefined }), 'svid_invalid: a certificate is missing'],
    ['no key', message({ x509_svid_key: undefined }), 'svid_invalid: the key is not in PKCS#8'],
    [
      'the key of another certificate',
      message({ x509_svid_key: ecPair().privateKey.export({ format: 'der', type: 'pkcs8' }) }),
      'svid_invalid: the key is not of the certificate',
    ],
    [
      'another SPIFFE ID than its certificate',
      message({ spiffe_id: 'spiffe://example.org/db' }),
      'svid_invalid: the certificate is not of the SPIFFE ID that came with it',
    ],
    [
      'the SPIFFE ID only as a part of another',
      message({ x509_svid: makeLeaf(root, { pair }, { altNames: altNames(uriName(`${LEAF_ID}2`)) }) }),
      'svid_invalid: the certificate is not of the SPIFFE ID that came with it',
    ],
  ])('with %s is refused', (_what, value, reason) => {
    expect(faultOf(() => parseX509Context(value))).toBe(reason)
  })

  it.each([
    ['cut short', chain.subarray(0, -1)],
    ['followed by garbage', Buffer.concat([chain, Buffer.from([1])])],
    ['PEM', Buffer.from('-----BEGIN CERTIFICATE-----')],
    ['of indefinite length', Buffer.from([0x30, 0x80, 0, 0])],
    ['of a length of five bytes', Buffer.from([0x30, 0x85, 1, 1, 1, 1, 1])],
    ['an empty sequence', Buffer.from([0x30, 0])],
  ])('with certificates that are %s is refused', (_what, bytes) => {
    expect(faultOf(() => parseX509Context(message({ x509_svid: bytes })))).toMatch(/^certificate_malformed/)
  })

  it('with 65 certificates is refused', () => {
    const many = Buffer.concat(Array.from({ length: 65 }, () => leaf))
    expect(faultOf(() => parseX509Context(message({ x509_svid: many })))).toBe(
      'svid_invalid: over 64 certificates',
    )
  })

  it('cut at any byte is refused and never throws anything else', () => {
    for (let length = 0; length < leaf.length; length++)
      expect(faultOf(() => parseX509Context(message({ x509_svid: leaf.subarray(0, length) })))).toMatch(
        /^(?:certificate_malformed|svid_invalid)/,
      )
  })
})

async function open(first: Record<string, unknown> = message(), options = {}) {
  const agent = new FakeAgent()
  const clock = new ManualClock(NOW * 1000)
  const opening = x509Source(agent, options, clock)
  agent.last.say(first)
  return { agent, clock, source: await opening }
}

describe('a source', () => {
  it('resolves with the first SVID and gives the newest', async () => {
    const { agent, source } = await open()
    let updates = 0
    source.onUpdated(() => {
      updates += 1
    })
    expect(source.svid().spiffeId).toBe(LEAF_ID)
    const later = makeLeaf(root, { pair, serial: Buffer.from('020177', 'hex') })
    agent.last.say(message({ x509_svid: later }))
    expect(source.svid().certificates[0]?.raw).toEqual(later)
    expect(updates).toBe(1)
  })

  it('gives PEM that node:tls takes', async () => {
    const { source } = await open()
    expect(source.pem().cert.match(/BEGIN CERTIFICATE/g)).toHaveLength(2)
    expect(source.secureContext()).toBeDefined()
  })

  it('keeps the last good SVID through an unreadable update and an agent that is away, and says why', async () => {
    const { agent, source } = await open()
    agent.last.say(message({ x509_svid_key: Buffer.from('x') }))
    expect(source.svid().spiffeId).toBe(LEAF_ID)
    expect(source.problem?.reason).toBe('svid_invalid')
    agent.last.end(CODE.UNAVAILABLE)
    expect(source.svid().spiffeId).toBe(LEAF_ID)
    expect(source.problem?.reason).toBe('agent_unreachable')
  })

  it('gives no SVID that has expired, however long the agent is away', async () => {
    const { clock, source } = await open()
    clock.advance(3_600_000)
    expect(faultOf(() => source.svid())).toMatch(/^svid_expired/)
    expect(faultOf(() => source.pem())).toMatch(/^svid_expired/)
  })

  it('stops giving an SVID when the agent says that there is no identity any more', async () => {
    const { agent, source } = await open()
    let updates = 0
    source.onUpdated(() => {
      updates += 1
    })
    agent.last.end(CODE.PERMISSION_DENIED, 'revoked')
    expect(faultOf(() => source.svid())).toMatch(/^revoked/)
    expect(updates).toBe(1)
  })

  it('gives the identity that was asked for and no other', async () => {
    const { source } = await open(message(), { spiffeId: 'spiffe://example.org/db' })
    expect(faultOf(() => source.svid())).toMatch(/^no_identity/)
  })

  it('knows bundles by trust domain or its id, and no other', async () => {
    const { source } = await open()
    expect(source.bundle('example.org')).toEqual(source.bundle('spiffe://example.org'))
    expect(faultOf(() => source.bundle('other.test'))).toMatch(/^bundle_missing/)
  })

  it('waits for its first SVID through refusals', async () => {
    const agent = new FakeAgent()
    const clock = new ManualClock(NOW * 1000)
    const opening = x509Source(agent, {}, clock)
    agent.last.end(CODE.PERMISSION_DENIED, 'no_identity')
    clock.advance(2_000)
    expect(agent.streams).toHaveLength(2)
    agent.last.say(message())
    expect((await opening).problem).toBeUndefined()
  })

  it('fails to open with what the agent refuses for good', async () => {
    const agent = new FakeAgent()
    const opening = x509Source(agent, {}, new ManualClock())
    agent.last.end(CODE.INVALID_ARGUMENT, 'header_missing')
    await expect(opening).rejects.toMatchObject({ reason: 'header_missing' })
  })

  it('fails to open with the last refusal when the signal aborts, and follows nothing more', async () => {
    const agent = new FakeAgent()
    const clock = new ManualClock()
    const controller = new AbortController()
    const opening = x509Source(agent, { signal: controller.signal }, clock).catch(
      (error: Fault) => error.reason,
    )
    agent.last.end(CODE.PERMISSION_DENIED, 'no_identity')
    controller.abort()
    expect(await opening).toBe('no_identity')
    clock.advance(60_000)
    expect(agent.streams).toHaveLength(1)
  })

  it('may be closed twice and gives nothing afterwards', async () => {
    const { agent, source } = await open()
    source.close()
    source.close()
    await tick()
    expect(agent.last.isCancelled).toBe(true)
    expect(faultOf(() => source.svid())).toBe('canceled: the source is closed')
  })
})
