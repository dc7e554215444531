/** Tokens of the replay lab: bound to keys that the agent does not hold, for the lab alone, and ended when it says so. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { probe } from '../../src/cli/probe.ts'
import { type LabKey, makeLabKey } from '../../src/probe/key.ts'
import type { ProbeReport } from '../../src/probe/run.ts'
import { newJti } from '../../src/proof/jwt.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { keptIo } from '../support/io.ts'
import { problemsIn } from '../support/policy.ts'
import {
  AUDIENCE,
  OTHER_AUDIENCE,
  openProbeRig,
  type ProbedService,
  type ProbeRig,
  startProbedService,
} from '../support/probed-service.ts'

const LAB = 'spiffe://dev.holdfast.test/lab'
const OTHER = 'spiffe://dev.holdfast.test/web'

interface Over {
  readonly entry?: string
  readonly custody?: string
  readonly grant?: string
  readonly security?: string
}

function policyOf(rig: ProbeRig, { custody = 'nothing', grant = ', probe: true', security = '' }: Over = {}) {
  const uid = process.getuid?.() ?? 0
  const server = `{ name: login, issuer: '${rig.issuer.issuer}', client: { id: web, auth: private_key_jwt, key: { file: ${rig.clientKeyFile} } } }`
  const target = (name: string, resource: string) =>
    `  - { name: ${name}, server: login, custody: ${custody}, max_ttl: 5m, resource: '${resource}', scopes: [read] }\n`
  const tls = `tls: { trust: { file: ${rig.dir}/ca.pem } }, addresses: [127.0.0.1]`
  const grants = (name: string) =>
    `  - name: ${name}\n    grants:\n      - { callers: [${LAB}], methods: [GET], paths: [/**]${grant} }\n      - { callers: [${OTHER}], methods: ['*'], paths: [/**] }\n`
  const entry = (id: string, more: string) =>
    `  - { spiffe_id: ${id}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false }${more} }\n`
  const isLab = grant.includes('probe')
  return {
    'identity.yaml': `layer: identity\nentries:\n${entry(LAB, isLab ? ', probe: true' : '')}${entry(OTHER, ', hint: web')}servers:\n  - ${server}\ntargets:\n${target('api', AUDIENCE)}${target('other', OTHER_AUDIENCE)}`,
    'platform.yaml': `layer: platform\nservers:\n  - { issuer: '${rig.issuer.issuer}', ${tls} }\ntargets:\n  - { name: api, origins: ['https://api.example.org'], ${tls} }\n  - { name: other, origins: ['https://other.example.org'], ${tls} }\n`,
    'application.yaml': `layer: application\ntargets:\n${grants('api')}${grants('other')}`,
    'security.yaml': `layer: security\n${security}`,
  }
}

let rig: ProbeRig
let agent: TestAgent

beforeAll(async () => {
  rig = await openProbeRig(120, true)
  rig.file('ca.pem', rig.ca.pem)
  agent = await startAgent({ policy: policyOf(rig) })
})

afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await rig?.[Symbol.asyncDispose]()
})

const ask = async (body: object, path = '/v1/probe-token') =>
  (await call(agent.socket, 'POST', path, { body: { spiffe_id: LAB, ...body } })).body

function proofFor(key: LabKey, htu: string, claims: object = {}): string {
  const iat = Math.floor(Date.now() / 1000)
  return key.sign(
    { typ: 'dpop+jwt', alg: 'ES256', jwk: key.publicJwk },
    { jti: newJti(), htm: 'POST', htu, iat, ...claims },
  )
}

/** As the command does it: ask, sign what is wanted, ask again. */
async function tokenFor(key: LabKey, target = 'api') {
  let proof: string | undefined
  for (let tries = 0; tries < 4; tries += 1) {
    const answer = await ask({ target, ...(proof ? { proof } : {}) })
    if (answer.token_endpoint === undefined) return answer
    const { token_endpoint: htu, nonce } = answer
    proof = proofFor(key, htu, nonce === undefined ? {} : { nonce })
  }
  throw new Error('no token')
}

describe('a token for a key that the agent does not hold', () => {
  it('is bound to that key by the real server, short, and on record as a probe', async () => {
    const key = makeLabKey()
    const { token, jkt, expires } = await tokenFor(key)
    const { cnf, exp } = parseJws(token)?.payload ?? {}
    expect([cnf, jkt, token.length > 100]).toEqual([{ jkt: key.jkt }, key.jkt, true])
    expect(Number(exp) - Date.now() / 1000).toBeLessThanOrEqual(120)
    expect(expires).toBeLessThanOrEqual(Number(exp))
    const record = agent.records.findLast(({ event, jkt: of }) => event === 'probe' && of === key.jkt)
    expect(record).toMatchObject({ allowed: true, spiffe_id: LAB, target: 'api' })
    expect(JSON.stringify(agent.records)).not.toMatch(/eyJ/)
  })

  it('is not had with the proof of another time, URL or method', async () => {
    const { token_endpoint: htu } = await ask({ target: 'api' })
    const key = makeLabKey()
    const reasons = []
    for (const [url, claims] of [
      [htu, { iat: 1_700_000_000 }],
      [`${htu}/x`, {}],
      [htu, { htm: 'GET' }],
    ])
      reasons.push((await ask({ target: 'api', proof: proofFor(key, url, claims) })).error.reason)
    expect(reasons).toEqual(['proof_time', 'proof_url', 'proof_method'])
  })

  it('is for the lab alone, whatever else another identity may have', async () => {
    const { error } = await ask({ target: 'api', spiffe_id: OTHER })
    expect([error.reason, error.message]).toEqual([
      'policy_denied',
      `no grant of api with probe: true names ${OTHER}`,
    ])
  })

  it('is all that the lab gets', async () => {
    const headers = { method: 'GET', url: 'https://api.example.org/v1' }
    expect((await ask(headers, '/v1/headers')).error.reason).toBe('policy_denied')
    expect((await ask({ target: 'api' }, '/v1/token')).error.reason).toBe('policy_denied')
    expect((await ask(headers, '/v1/dpop')).error.reason).toBe('policy_denied')
  })

  it('is refused where security denies the lab', async () => {
    await agent.setPolicy(policyOf(rig, { security: `deny: [{ spiffe_id: ${LAB}, reason: freeze }]\n` }))
    const { error } = await ask({ target: 'api' })
    await agent.setPolicy(policyOf(rig))
    expect([error.reason, error.owner]).toEqual(['policy_denied', 'security'])
  })

  it('is ended by whoever got it, and by nobody else', async () => {
    const key = makeLabKey()
    await tokenFor(key)
    const stranger = await ask({ jkt: makeLabKey().jkt }, '/v1/probe-revocation')
    expect(stranger.error.reason).toBe('not_found')
    expect(await ask({ jkt: key.jkt }, '/v1/probe-revocation')).toEqual({ revoked: key.jkt })
    const again = await ask({ jkt: key.jkt }, '/v1/probe-revocation')
    expect(again.error.reason).toBe('not_found')
  })
})

describe('what policy cannot say of the lab', () => {
  const files = (entry: string, grant: string, target = '') => ({
    identity: `layer: identity\nentries:\n  - { spiffe_id: spiffe://example.org/lab, selectors: ['unix:uid:1'], deliver: { x509: false, jwt: false, wit: false }${entry} }\nservers:\n  - { name: login, issuer: https://as.example.org, client: { id: web, auth: private_key_jwt } }\ntargets:\n  - { name: api, server: login, custody: nothing${target} }\n`,
    platform: `layer: platform\ntargets:\n  - { name: api, origins: ['https://api.example.org'] }\n`,
    application: `layer: application\ntargets:\n  - { name: api, grants: [{ callers: [spiffe://example.org/lab], methods: [GET], paths: [/**]${grant} }] }\n`,
  })
  const says = async (...given: Parameters<typeof files>) =>
    (await problemsIn(files(...given))).map((line) => line.replace(/^[^ ]+ /, '')).join('\n')

  it('is accepted when both layers say so', async () => {
    expect(await says(', probe: true', ', probe: true')).toBe('')
  })

  it.each<[string, Parameters<typeof files>, RegExp]>([
    ['an ordinary entry', ['', ', probe: true'], /names .*\/lab, which no entry with probe: true has/],
    ['an ordinary grant', [', probe: true', ''], /names .*\/lab, which is the lab's/],
    ['another binding', [', probe: true', ', probe: true', ', binding: [dpop, wpt]'], /bound by dpop alone/],
  ])('%s', async (_what, given, message) => {
    expect(await says(...given)).toMatch(message)
  })

  it('a method that changes something, or an identity that is delivered', async () => {
    const given = files(', probe: true', ', probe: true')
    const application = given.application.replace('[GET]', '[GET, POST]')
    expect((await problemsIn({ ...given, application })).join()).toContain('allows POST')
    const identity = given.identity.replace('jwt: false', 'jwt: true')
    expect((await problemsIn({ ...given, identity })).join()).toContain('is delivered SVIDs')
  })
})

describe('the replay lab with the agent', () => {
  async function run(service: ProbedService) {
    const io = Object.assign(keptIo(), {
      now: () => Math.floor(rig.clock.now() / 1000),
      sleep: async (ms: number) => rig.clock.advance(ms),
    })
    const options = { socket: agent.socket, spiffeId: LAB, target: 'api', otherTarget: 'other' }
    const rest = {
      late: '60s',
      patience: '5m',
      maxTtl: '10m',
      nonceLife: '5m',
      rate: 100,
      quick: true,
      output: 'json',
    } as const
    const code = await probe(
      `${service.origin}/v1/items`,
      { ...options, ...rest, ca: `${rig.dir}/ca.pem` },
      io,
    )
    return { code, report: JSON.parse(io.written.out) as ProbeReport }
  }

  it('finds all refused but what was revoked, where no revocation is heard', async () => {
    await using service = await startProbedService({ rig })
    const { code, report } = await run(service)
    const open = report.results.filter(({ verdict }) => verdict === 'broken')
    expect(open.map(({ id, owner, seen }) => `${id} ${owner} ${seen}`)).toEqual(['revoked security 200'])
    expect(code).toBe(1)
  })

  it('finds what was revoked refused, where the revocations of the agent are heard', async () => {
    await using service = await startProbedService({ rig })
    service.revokedKeys = () => revokedKeys(agent)
    const { code, report } = await run(service)
    expect(report.results.find(({ id }) => id === 'revoked')?.verdict).toBe('held')
    expect(code).toBe(0)
  })
})

/** Keys that the lab has ended, by the agent's record: the only probe records without a target. */
function revokedKeys({ records }: TestAgent): ReadonlySet<unknown> {
  return new Set(
    records.flatMap(({ event, target, jkt }) => (event === 'probe' && !target && jkt ? [jkt] : [])),
  )
}
