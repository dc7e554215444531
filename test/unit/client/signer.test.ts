/** What the signer puts on the wire, and what it keeps to itself. */
import { describe, expect, it } from 'vitest'
import { type DpopRequest, signerOver, type WptRequest } from '../../../src/client/signer.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeAgent, tick } from '../../support/fake-agent.ts'

function setup(spiffeId?: string) {
  const agent = new FakeAgent()
  return { agent, signer: signerOver(agent, new ManualClock(), spiffeId) }
}

/** The members that were sent; absent ones are absent. */
const sentBy = async (agent: FakeAgent) => {
  await tick()
  agent.last.ready()
  return JSON.parse(JSON.stringify(agent.last.requests(0)))
}

describe('the signer', () => {
  it('sends a DPoP request with the names of the service', async () => {
    const { agent, signer } = setup('spiffe://example.org/web')
    const request = { method: 'GET', url: 'https://a.test/x', accessToken: 't', nonce: 'n', jkt: 'k' }
    void signer.dpop(request)
    const { accessToken, ...rest } = request
    const dpop = { ...rest, access_token: accessToken, spiffe_id: 'spiffe://example.org/web' }
    expect(await sentBy(agent)).toEqual([{ id: 1, dpop }])
  })

  it('sends a WPT request with the names of the service', async () => {
    const { agent, signer } = setup()
    void signer.wpt({ url: 'https://a.test/x', ath: 'a', txnToken: 't' })
    expect(await sentBy(agent)).toEqual([
      { id: 1, wpt: { url: 'https://a.test/x', ath: 'a', txn_token: 't' } },
    ])
  })

  it.each([
    ['https://a.test/x?secret=1', 'https://a.test/x'],
    ['https://a.test/x#secret', 'https://a.test/x'],
    ['https://a.test/x?a#b?c', 'https://a.test/x'],
    ['https://a.test?secret', 'https://a.test'],
    ['https://a.test/x', 'https://a.test/x'],
  ])('keeps query and fragment of %s to itself', async (url, sent) => {
    const { agent, signer } = setup()
    void signer.dpop({ method: 'GET', url })
    void signer.wpt({ url })
    const requests = await sentBy(agent)
    expect([requests[0].dpop.url, requests[1].wpt.url]).toEqual([sent, sent])
  })

  it.each([
    ['method', { method: 7, url: 'https://a.test/' }],
    ['url', { method: 'GET', url: null }],
    ['access_token', { method: 'GET', url: 'https://a.test/', accessToken: ['canary'] }],
    ['nonce', { method: 'GET', url: 'https://a.test/', nonce: { toString: () => 'canary' } }],
  ])('sends nothing when %s is not a text, and does not quote it', async (name, request) => {
    const { agent, signer } = setup()
    const error = await signer.dpop(request as unknown as DpopRequest).catch((caught: unknown) => caught)
    expect(error).toMatchObject({ reason: 'invalid_request', message: `${name} is not a text` })
    await tick()
    expect(agent.streams).toEqual([])
  })

  it('refuses a WPT request whose url is not a text', async () => {
    const { signer } = setup()
    await expect(signer.wpt({ url: 7 } as unknown as WptRequest)).rejects.toMatchObject({
      reason: 'invalid_request',
    })
  })

  it('ends with its scope', async () => {
    const { agent, signer } = setup()
    const pending = signer.dpop({ method: 'GET', url: 'https://a.test/' }).catch((error) => error)
    await tick()
    {
      await using _scope = signer
    }
    expect(await pending).toMatchObject({ reason: 'canceled' })
    expect(agent.last.isCancelled).toBe(true)
  })
})
