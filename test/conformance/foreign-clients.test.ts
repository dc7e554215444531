/** SPIFFE clients that nobody here wrote, against the built agent and against one whose time is moved. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { startAgent } from '../support/agent.ts'
import { type BuiltAgent, startBuiltAgent } from '../support/built-agent.ts'
import { ManualClock } from '../support/clock.ts'
import { CLIENTS, type ForeignClient, fetchAll, follow, missingTool, prepare } from './clients.ts'

const DOMAIN = 'dev.holdfast.test'
const FIRST = `spiffe://${DOMAIN}/first`
const SECOND = `spiffe://${DOMAIN}/second`
const THIRD = `spiffe://${DOMAIN}/third`
const MINUTE = 60_000
const HOUR = 60 * MINUTE
const HOUR_S = 3600

/** One caller with several identities, each with a hint. */
function identities(...ids: readonly string[]): string {
  const entries = ids.map(
    (id) => `  - spiffe_id: ${id}
    selectors: [unix:uid:${process.getuid?.()}]
    hint: ${id.split('/').pop()}
    dns_names: [${id.split('/').pop()}.example.test]
    deliver: { x509: true, jwt: true, wit: true }
`,
  )
  return `layer: identity\nentries:\n${entries.join('')}`
}

/** The built agent in a directory that has its policy already. */
async function startWithIdentities(dir: string, ...ids: readonly string[]): Promise<BuiltAgent> {
  mkdirSync(join(dir, 'policy'), { mode: 0o755 })
  for (const layer of ['platform', 'application', 'security'])
    writeFileSync(join(dir, 'policy', `${layer}.yaml`), `layer: ${layer}\n`)
  writeFileSync(join(dir, 'policy', 'identity.yaml'), identities(...ids))
  return startBuiltAgent({ dir })
}

function shownSvids(client: ForeignClient, more: Readonly<Record<string, object>> = {}) {
  return [FIRST, SECOND].map((id) =>
    expect.objectContaining({
      spiffe_id: id,
      ...(client.has.hints ? { hint: id.split('/').pop() } : {}),
      ...more,
    }),
  )
}

describe.each(CLIENTS.map((client) => [client.name, client] as const))('%s', (_name, client) => {
  const missing = missingTool(client)
  if (missing) console.warn(`SKIPPED: ${client.name} needs ${missing}; .ci/tools installs it`)
  const test = it.skipIf(missing !== undefined)
  let command: readonly string[] = []

  beforeAll(() => {
    if (!missing) command = prepare(client)
  }, 600_000)

  test('fetches and verifies every kind of SVID and bundle of the built agent', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
    try {
      await using agent = await startWithIdentities(dir, FIRST, SECOND)
      const result = await fetchAll(command, agent.socket)
      expect(result.x509).toEqual(shownSvids(client, { chain: 1 } as never))
      expect(result.x509_bundles).toEqual({ [DOMAIN]: 1 })
      expect(result.jwt).toEqual(shownSvids(client, { audience: ['one', 'two'] }))
      expect(result.jwt.map((svid: { verified: string }) => svid.verified)).toEqual([FIRST, SECOND])
      expect(result.jwt_bundles).toEqual({ [DOMAIN]: 1 })
      expect(result.validated).toBe(FIRST)
      expect(result.chosen).toBe(SECOND)
      expect(result.wrong_audience).toMatch(/invalid_?argument/i)
      expect(result.foreign_id).toMatch(/permission_?denied/i)
      if (!client.has.wit) return
      expect(result.wit).toEqual(shownSvids(client))
      expect(result.wit.map((svid: { verified: string }) => svid.verified)).toEqual([FIRST, SECOND])
      expect(result.wit_bundles).toEqual({ [DOMAIN]: 1 })
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })

  test('hears of a new identity when the built agent reads its policy again', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
    try {
      await using agent = await startWithIdentities(dir, FIRST, SECOND)
      await using follower = follow(command, agent.socket)
      const idsOf = (line: { x509: { spiffe_id: string }[] }) => line.x509.map((svid) => svid.spiffe_id)
      const before = await follower.next('x509', (line) => line.x509.length === 2)
      writeFileSync(join(dir, 'policy', 'identity.yaml'), identities(FIRST, SECOND, THIRD))
      process.kill(agent.pid, 'SIGHUP')
      const after = await follower.next('x509', (line) => line.x509.length === 3)
      expect(idsOf(after)).toEqual([FIRST, SECOND, THIRD])
      expect(after.x509.slice(0, 2)).toEqual(before.x509)
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })

  test('follows the rotation of SVIDs and of the signing keys', async () => {
    const clock = new ManualClock(systemClock.now())
    await using agent = await startAgent({
      clock,
      config: (config) => ({
        ...config,
        authority: { ...config.authority, caTtl: 4 * HOUR_S, keyTtl: 4 * HOUR_S },
      }),
    })
    await using follower = follow(command, agent.socket)
    const serialOf = (line: { x509: { serial: string }[] }) => line.x509[0]?.serial
    const first = await follower.next('x509', () => true)
    await follower.next('jwt_keys', (line) => line.jwt_keys === 1)
    expect(first.roots).toBe(1)
    clock.advance(34 * MINUTE)
    const renewed = await follower.next('x509', (line) => serialOf(line) !== serialOf(first))
    expect(renewed.roots).toBe(1)
    for (let hour = 0; hour < 3; hour++) clock.advance(HOUR)
    await follower.next('x509', (line) => line.roots === 2)
    await follower.next('jwt_keys', (line) => line.jwt_keys === 2)
  })

  test.each([
    ['ES384', 2],
    ['RS256', 2],
    ['PS256', 2],
  ] as const)('verifies SVIDs signed with %s below an intermediate CA', async (algorithm, chain) => {
    await using agent = await startAgent({
      config: (config) => ({ ...config, authority: { ...config.authority, algorithm, intermediate: true } }),
    })
    const result = await fetchAll(command, agent.socket)
    expect(result.x509).toEqual([expect.objectContaining({ chain })])
    expect(result.jwt).toHaveLength(1)
    expect(result.validated).toBe(result.jwt[0].verified)
  })
})
