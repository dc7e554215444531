/** The replay lab against services over TLS with real tokens: all is well, or one thing is wrong and somebody has to act. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { probe } from '../../src/cli/probe.ts'
import { NASTY, type Nastiness, startHostileService } from '../support/hostile-service.ts'
import { openProbeLab, PROBE_DEFAULTS, type ProbeLab } from '../support/probe-lab.ts'
import { type Flaw, type ProbeRig, startProbedService } from '../support/probed-service.ts'
import { makeTestCa } from '../support/tls.ts'

let lab: ProbeLab
let rig: ProbeRig

beforeAll(async () => {
  lab = await openProbeLab()
  rig = lab.rig
})

afterAll(() => lab[Symbol.asyncDispose]())

const run: ProbeLab['run'] = (service, over) => lab.run(service, over)

const open = (flaws: readonly Flaw[] = []) => startProbedService({ rig, flaws })

describe('the replay lab at a service that checks everything', () => {
  it('finds all cases refused, and says what was seen', async () => {
    await using service = await open()
    const { code, report, broken } = await run(service, { audit: [service.auditFile] })
    expect(broken).toEqual([])
    const rest = report.results.filter(({ verdict }) => verdict !== 'held')
    expect(rest.map(({ id, verdict }) => `${id} ${verdict}`)).toEqual([
      'passed_on untried',
      'query_swapped uncovered',
      'old_nonce untried',
    ])
    expect(
      new Set(report.results.filter(({ verdict }) => verdict === 'held').map((each) => each.evidence)),
    ).toEqual(new Set(['seen', 'inferred']))
    expect(code).toBe(0)
  })
})

describe('the replay lab at a service with a flaw', () => {
  it.each<[Flaw, readonly string[]]>([
    ['skips_ath', ['wrong_ath: application']],
    ['ignores_method', ['other_method: application']],
    ['trusts_forwarded_host', ['forwarded_host: application']],
    ['believes_user', ['forged_user: application']],
    ['believes_xfcc', ['forged_xfcc: platform']],
    ['no_replay_store', ['replay: application', 'late_replay: application']],
    ['takes_bearer', ['as_bearer: application']],
    ['cookie', ['cookie: application']],
    ['cache', ['shared_cache: platform']],
    ['no_revocation', ['revoked: security']],
    ['any_audience', ['other_audience: application']],
    ['ignores_url', ['other_url: application', 'forwarded_host: application']],
    ['any_key', ['other_key: application']],
    ['unsigned', ['forged_proof: application']],
    ['any_alg', ['alg_none: application']],
    ['private_jwk', ['private_jwk: application']],
    ['any_future', ['future_iat: application']],
    ['any_past', ['past_iat: application']],
    ['first_proof', ['two_proofs: application']],
    ['last_proof', ['two_proofs: application']],
    ['no_proof', ['no_proof: application']],
    ['no_token', ['no_token: application']],
    ['no_end', ['expired: application']],
    ['knows_users', ['forged_user: application']],
    ['knows_certificates', ['forged_xfcc: platform']],
    ['believes_claims', ['forged_user: application']],
    ['odd_cookie', ['cookie: application']],
  ])('finds %s', async (flaw, wanted) => {
    await using service = await open([flaw])
    const { code, broken } = await run(service)
    expect(broken).toEqual(wanted)
    expect(code).toBe(1)
  })

  it('finds that the service checks no proof at all, though it knows a bearer token when it sees one', async () => {
    await using service = await open(['drops_proof'])
    const { code, broken, report } = await run(service)
    expect(broken.map((each) => each.split(':')[0])).toEqual([
      'replay',
      'other_method',
      'other_url',
      'wrong_ath',
      'other_key',
      'forged_proof',
      'alg_none',
      'private_jwk',
      'future_iat',
      'past_iat',
      'two_proofs',
      'no_proof',
      'forwarded_host',
      'late_replay',
    ])
    const told = report.results.find(({ id }) => id === 'cookie')
    expect([told?.verdict, told?.seen, code]).toEqual(['held', 'no cookie was set', 1])
  })

  it('finds tokens that live long, which is for identity to mend', async () => {
    await using long = await openProbeLab(86_400)
    await using service = await startProbedService({ rig: long.rig, maxTtl: '2d' })
    const { code, broken, report } = await long.run(service)
    expect(broken).toEqual(['long_life: identity'])
    const { seen } = report.results.find(({ id }) => id === 'long_life') ?? {}
    expect([seen, code]).toEqual(['the token lives 86400 s, wanted 600 s at most', 1])
  })
})

describe('what a run concludes', () => {
  it('is nothing when the genuine request is refused', async () => {
    await using service = await startProbedService({ rig, publicOrigin: 'https://api.example.org' })
    const { code, report } = await run(service)
    expect(report.inconclusive).toBe(
      'the genuine request was not taken (401 invalid_dpop_proof): whether a thief is refused cannot be told',
    )
    expect([code, report.results]).toEqual([2, []])
  })

  it('is that the gateway is at fault where the service behind it refuses the same', async () => {
    await using gateway = await open(['drops_proof'])
    await using service = await startProbedService({ rig, publicOrigin: gateway.origin })
    const { broken, report } = await run(gateway, { behind: `${service.origin}/v1/items` })
    expect(broken).toContain('no_proof: platform')
    expect(broken).toContain('replay: platform')
    const { note } = report.results.find(({ id }) => id === 'no_proof') ?? {}
    expect(note).toBe('behind refuses it, front lets it through: what stands between gives it what it lacks')
    expect(report.places.map(({ name, genuine }) => `${name} ${genuine}`)).toEqual([
      'front taken',
      'behind taken',
    ])
  })

  it('is that the service is at fault where it takes the same straight', async () => {
    await using gateway = await open()
    await using service = await startProbedService({
      rig,
      publicOrigin: gateway.origin,
      flaws: ['believes_user'],
    })
    const { broken, code } = await run(gateway, { behind: `${service.origin}/v1/items` })
    expect([broken, code]).toEqual([['behind/forged_user: application'], 1])
  })

  it('is that an answer came before the verifier where its audit has no record', async () => {
    await using service = await open(['believes_user'])
    const { broken, report } = await run(service, { audit: [service.auditFile] })
    expect(broken).toEqual(['forged_user: platform'])
    expect(report.results.find(({ id }) => id === 'forged_user')?.note).toContain('has no record of it')
  })

  const behind = async (flaws: readonly Flaw[]) => {
    const gateway = await open()
    const service = await startProbedService({ rig, publicOrigin: gateway.origin, flaws })
    const close = async () => {
      await gateway[Symbol.asyncDispose]()
      await service[Symbol.asyncDispose]()
    }
    return { gateway, service, [Symbol.asyncDispose]: close }
  }

  it('is nothing where a lock-out further in may be what refuses', async () => {
    await using places = await behind(['locks_out', 'takes_bearer'])
    const { code, report, broken } = await run(places.gateway, {
      behind: `${places.service.origin}/v1/items`,
    })
    expect([broken, code]).toEqual([[], 2])
    expect(report.inconclusive).toMatch(/^a genuine request was not taken after the others \(401\)/)
  })

  it('is that a thief was let in, though a lock-out hides the rest', async () => {
    await using front = await open(['skips_ath'])
    await using inner = await startProbedService({ rig, publicOrigin: front.origin, flaws: ['locks_out'] })
    const html = join(rig.dir, 'locked.html')
    const files = { behind: `${inner.origin}/v1/items`, html, quick: true }
    const { code, report } = await run(front, files)
    expect([code, report.inconclusive]).toEqual([1, expect.stringContaining('lock-out')])
    expect(readFileSync(html, 'utf8')).toContain('A thief was let in: 1 of ')
    const io = lab.io()
    await using other = await startProbedService({ rig, publicOrigin: front.origin, flaws: ['locks_out'] })
    const shown = { ...(await lab.files()), ...PROBE_DEFAULTS, ...files, behind: `${other.origin}/v1/items` }
    await probe(`${front.origin}/v1/items`, shown, io)
    expect(io.written.out).toMatch(/nothing concluded: [^\n]+\n\d+ refused, 2 taken/)
  })

  it('is found behind the gateway by the public name, where the service knows no other', async () => {
    await using places = await behind(['knows_host', 'takes_bearer'])
    const { code, broken } = await run(places.gateway, { behind: `${places.service.origin}/v1/items` })
    expect([broken, code]).toEqual([['behind/as_bearer: application'], 1])
  })

  it('is not clear where only the lab does not go on: a thief looks at no certificate', async () => {
    await using gateway = await open()
    const stranger = createServer(makeTestCa().serverFiles(), (_request, response) => response.end())
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve))
    const { port } = stranger.address() as AddressInfo
    try {
      const { code, report } = await run(gateway, { behind: `https://localhost:${port}/`, quick: true })
      const found = report.results.find(({ id }) => id === 'behind/no_token')
      expect([found?.verdict, code]).toEqual(['unclear', 1])
      expect(found?.note).toContain('a thief is not kept out by that')
    } finally {
      stranger.close()
    }
  })

  it('is that nobody gets in where nothing listens', async () => {
    await using gateway = await open()
    const { code, report } = await run(gateway, { behind: 'https://localhost:1/', quick: true })
    expect([report.results.find(({ id }) => id === 'behind/no_token')?.verdict, code]).toEqual(['held', 0])
  })

  it.each<[Flaw, string, string]>([
    ['busy_once', 'replay', 'the genuine request before it was not taken'],
    ['huge_cookie', 'cookie', 'a cookie was set that the lab cannot send back'],
  ])('is not clear where a case could not be played (%s)', async (flaw, id, note) => {
    await using service = await open([flaw])
    const { code, report } = await run(service, { quick: true })
    const unclear = report.results.filter(({ verdict }) => verdict === 'unclear')
    expect(unclear.map((each) => [each.id, each.note])).toEqual([[id, note]])
    expect(unclear[0]?.cure).toMatch(/^Run the probe again/)
    expect(code).toBe(1)
  })

  it('is not clear when the token ends before an old proof is sent', async () => {
    await using service = await startProbedService({ rig, flaws: ['any_past', 'no_replay_store'] })
    const { report, code } = await run(service, { late: '3m' })
    const late = report.results.find(({ id }) => id === 'late_replay')
    expect([late?.verdict, late?.note, code]).toEqual([
      'unclear',
      'the genuine request after the wait was not taken: use a token that lives longer, or wait less',
      1,
    ])
  })

  it('rests on proofs with a nonce where the service wants one', async () => {
    await using service = await startProbedService({ rig, nonce: 'required' })
    const { code, report } = await run(service, { audit: [service.auditFile] })
    const open = report.results.filter(({ verdict }) => verdict !== 'held')
    expect(open.map(({ id, verdict, note }) => `${id} ${verdict} ${note}`)).toEqual([
      'passed_on untried no audit of a service further on was named (--downstream-audit)',
      'query_swapped uncovered not covered by DPoP: htu has no query (--covers-query says otherwise)',
    ])
    expect(code).toBe(0)
  })

  it('is a failure where any nonce is taken, or one that was given long ago', async () => {
    await using any = await startProbedService({ rig, nonce: 'required', flaws: ['any_nonce'] })
    expect((await run(any, { quick: true })).broken).toEqual(['old_nonce: application'])
    await using slow = await startProbedService({ rig, nonce: 'required' })
    const { broken } = await run(slow, { nonceLife: '1s', late: '2s', patience: '10s' })
    expect(broken).toEqual(['old_nonce: application'])
  })

  it('is a failure where the query has to be covered, and DPoP covers none', async () => {
    await using service = await open()
    const { broken, code } = await run(service, { coversQuery: true, quick: true })
    expect([broken, code]).toEqual([['query_swapped: identity'], 1])
  })
})

describe('a risk that somebody answers for', () => {
  const risks = (until: string) =>
    rig.file(
      'risks.yaml',
      `accept:\n  - { case: wrong_ath, approver: Ann, until: ${until}, reason: the client is replaced in May }\n`,
    )

  it('is shown as such, and fails nothing', async () => {
    await using service = await open(['skips_ath'])
    const { code, report } = await run(service, { accept: risks('2090-01-01'), quick: true })
    const { verdict, acceptance } = report.results.find(({ id }) => id === 'wrong_ath') ?? {}
    expect([code, verdict, acceptance]).toEqual([
      0,
      'accepted',
      { approver: 'Ann', until: '2090-01-01', reason: 'the client is replaced in May' },
    ])
  })

  it('counts no more when its time is over', async () => {
    await using service = await open(['skips_ath'])
    const { code, report } = await run(service, { accept: risks('2020-01-01'), quick: true })
    const { verdict, note } = report.results.find(({ id }) => id === 'wrong_ath') ?? {}
    expect([code, verdict, note]).toEqual([1, 'broken', 'Ann accepted it until 2020-01-01, which is over'])
  })

  it('has to be about a case that there is', async () => {
    await using service = await open()
    const accept = rig.file(
      'risks.yaml',
      'accept: [{ case: reply, approver: a, until: 2090-01-01, reason: b }]\n',
    )
    await expect(run(service, { accept, quick: true })).rejects.toMatchObject({ reason: 'config_invalid' })
  })
})

describe('what a run leaves', () => {
  it('tells what differs from an earlier run', async () => {
    await using good = await open()
    const first = await run(good, { quick: true })
    const baseline = rig.file('baseline.json', JSON.stringify(first.report))
    await using service = await open(['skips_ath'])
    const { report } = await run(service, { baseline, quick: true })
    expect(report.changes).toEqual([{ id: 'wrong_ath', before: 'held', now: 'broken' }])
  })

  it('is a line a run where it goes on, each compared with the one before, until it is stopped', async () => {
    await using service = await open(['skips_ath'])
    const io = lab.io()
    let waits = 0
    const { sleep } = io
    const moving = Object.assign(io, {
      sleep: (ms: number) => {
        if (ms === 3_600_000 && ++waits === 2) io.stop()
        return ms === 3_600_000 ? Promise.resolve() : sleep(ms)
      },
    })
    const options = {
      ...(await lab.files()),
      ...PROBE_DEFAULTS,
      every: '1h',
      output: 'json',
      quick: true,
    } as const
    const code = await probe(`${service.origin}/v1/items`, options, moving)
    const lines = moving.written.out.trim().split('\n')
    expect([code, waits, lines.map((line) => JSON.parse(line).changes)]).toEqual([1, 2, [[], []]])
  })

  it('shows no token, proof, nonce or key in any form of the report', async () => {
    await using service = await startProbedService({ rig, nonce: 'required', flaws: ['cookie'] })
    const [html, junit] = [join(rig.dir, 'report.html'), join(rig.dir, 'report.xml')]
    const { report } = await run(service, { html, junit, quick: true })
    const text = [JSON.stringify(report), readFileSync(html, 'utf8'), readFileSync(junit, 'utf8')].join('\n')
    expect(text).not.toMatch(/eyJ|session=1234/)
    expect(text).not.toContain(lab.key.publicJwk.kty === 'EC' ? lab.key.publicJwk.x : '')
  })

  it('is one page without script whose style is the only thing its policy allows', async () => {
    await using good = await open()
    const quick = join(rig.dir, 'quick.html')
    await run(good, { html: quick, quick: true })
    expect(readFileSync(quick, 'utf8')).toMatch(/A thief was refused; \d cases were not tried/)
    await using service = await open(['skips_ath', 'cache'])
    const html = join(rig.dir, 'page.html')
    await run(service, { html, behind: 'https://localhost:1/', hop: [`edge=${service.origin}/v1/items`] })
    const page = readFileSync(html, 'utf8')
    const [, style = ''] = /<style>([\s\S]*?)<\/style>/.exec(page) ?? []
    const digest = createHash('sha256').update(style).digest('base64')
    expect(page).toContain(`style-src &#39;sha256-${digest}&#39;`)
    expect(page).not.toMatch(
      /<script|<link|<img|<iframe| style=| on[a-z]+=|url\(|@import|https?:\/\/(?!localhost)/i,
    )
  })
})

/** Control characters but for the line end, and marks that turn text around. */
const UNSEEN = /[^\P{Cc}\n]|[\u202a-\u202e\u2066-\u2069]/u

describe('a hostile service', () => {
  it.each(Object.keys(NASTY) as Nastiness[])(
    'gets none of its %s into the page, the XML or the terminal as it wrote it',
    async (what) => {
      // Two requests go well, so that there are results to be spoilt.
      await using hostile = await startHostileService(rig.ca, what, 2)
      const [html, junit] = [join(rig.dir, 'hostile.html'), join(rig.dir, 'hostile.xml')]
      const io = lab.io()
      const options = { ...(await lab.files()), ...PROBE_DEFAULTS, html, junit, quick: true } as const
      expect(await probe(`${hostile.origin}/v1/items`, options, io)).not.toBe(0)
      const [page, xml] = [readFileSync(html, 'utf8'), readFileSync(junit, 'utf8')]
      for (const text of [page, xml]) expect(text).not.toMatch(/<script|<img|onerror=alert\(1\)>/)
      for (const text of [page, xml, io.written.out]) expect(text).not.toMatch(UNSEEN)
      // What came through at all came as text.
      if (what === 'markup and bidi marks') expect(page).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
    },
  )
})
