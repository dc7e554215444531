import { afterEach, describe, expect, it, vi } from 'vitest'
import {
  type Config,
  checkReload,
  configSchemaJson,
  devConfig,
  parseConfig,
  settingRows,
} from '../../src/config.ts'

async function parse(text: string): Promise<Config> {
  const result = await parseConfig('/etc/holdfast/config.yaml', text)
  if ('problems' in result) throw new Error(JSON.stringify(result.problems))
  return result.config
}

async function problems(text: string): Promise<readonly string[]> {
  const result = await parseConfig('c.yaml', text)
  return 'problems' in result ? result.problems.map(({ line, message }) => `${line}: ${message}`) : []
}

describe('parseConfig', () => {
  it('needs only a trust domain', async () => {
    const config = await parse('trust_domain: example.org')
    const dev = devConfig()
    const egress = { ...dev.egress, socket: 'off' }
    expect(config).toEqual({ ...dev, trustDomain: 'example.org', wit: 'off', egress })
    expect(dev.egress.socket).toBe('on')
    expect(config.svid).toEqual({ x509Ttl: 3600, jwtTtl: 300 })
  })

  it('reads durations once, addresses as parts and paths relative to the file', async () => {
    const config = await parse(
      [
        'trust_domain: example.org',
        'svid: { x509_ttl: 90s, jwt_ttl: 2m }',
        'ops: { listen: "[::1]:9465" }',
        'policy: { files: [policy/, /srv/extra.yaml] }',
      ].join('\n'),
    )
    expect(config.svid).toEqual({ x509Ttl: 90, jwtTtl: 120 })
    expect(config.ops.listen).toEqual({ host: '::1', port: 9465 })
    expect(config.policy.files).toEqual(['/etc/holdfast/policy', '/srv/extra.yaml'])
  })

  it.each([
    ['nothing', '', ['1: trust_domain: is missing']],
    [
      'an unknown key',
      'trust_domain: a.test\nlimits:\n  conections: 5',
      ['3: unknown key "conections" in limits, did you mean "connections"?'],
    ],
    ['an unknown section', 'trust_domain: a.test\nlgo: {}', ['2: unknown key "lgo", did you mean "log"?']],
    [
      'a key twice',
      'trust_domain: a.test\nwit: on\nwit: off',
      ['3: the key "wit" is there twice; first on line 2'],
    ],
    [
      'a wrong choice',
      'trust_domain: a.test\nwit: onn',
      ['2: wit: is "onn", wanted off or on, did you mean "on"?'],
    ],
    [
      'a bare number for a duration',
      'trust_domain: a.test\nsvid:\n  jwt_ttl: 300',
      ['3: svid.jwt_ttl: is 300, wanted a text'],
    ],
    [
      'a duration without unit',
      'trust_domain: a.test\nsvid:\n  jwt_ttl: "300"',
      ['3: svid.jwt_ttl: is "300", wanted a duration such as 90s, 5m, 1h or 7d'],
    ],
    [
      'a duration out of bounds',
      'trust_domain: a.test\nsvid:\n  jwt_ttl: 2d',
      ['3: svid.jwt_ttl: is 2d, wanted from 30 to 86400 seconds'],
    ],
    [
      'a count out of bounds',
      'trust_domain: a.test\nlimits: { connections: 0 }',
      ['2: limits.connections: is too small, wanted at least 1'],
    ],
    [
      'a trust domain in upper case',
      'trust_domain: A.test',
      ['1: trust_domain: not a trust domain: "A.test"'],
    ],
    [
      'two problems at once',
      'trust_domain: a.test\nwit: yes\nlimits: { connections: many }',
      ['2: wit: is "yes", wanted off or on', '3: limits.connections: is "many", wanted a number'],
    ],
    [
      'a CA certificate without its key',
      'trust_domain: a.test\nauthority:\n  ca: { certificate_file: ca.pem }',
      ['3: authority.ca: certificate_file and key_file go together'],
    ],
    [
      'client attestation without WIT-SVIDs',
      'trust_domain: a.test\ntokens:\n  client_attestation: on',
      [
        '3: tokens.client_attestation: wants WIT-SVIDs: set wit: on, and authority.nodes: one or jwt_keys_file',
      ],
    ],
    [
      'a plain bundle endpoint on every address',
      'trust_domain: a.test\nbundle_endpoint:\n  listen: 0.0.0.0:8443',
      ['3: bundle_endpoint.listen: plain HTTP only on loopback: set certificate_file and key_file'],
    ],
  ])('says where and what is wrong with %s', async (_what, text, expected) => {
    expect(await problems(text)).toEqual(expected)
  })
})

describe('the table of settings', () => {
  it('makes a JSON Schema that requires a trust domain and nothing else', async () => {
    const schema = (await configSchemaJson()) as {
      required: string[]
      additionalProperties: boolean
      properties: Record<string, { required?: string[]; description?: string }>
    }
    expect(schema.required).toEqual(['trust_domain'])
    expect(schema.additionalProperties).toBe(false)
    expect(Object.values(schema.properties).every((property) => property.required === undefined)).toBe(true)
  })

  it('has a type, a default and a sentence for every setting', () => {
    const rows = settingRows()
    expect(rows.length).toBeGreaterThan(30)
    for (const row of rows) {
      expect(row.says, row.name).toMatch(/^[A-Z].*\.$/)
      expect(row.type, row.name).not.toBe('')
      expect(row.default, row.name).not.toBe('')
    }
  })

  it.each([
    ['authority: {nodes: many}', 'each node would make a root that no other knows'],
    ['authority: {nodes: many, separate_roots: true}', ''],
    ['authority: {nodes: many, ca: {certificate_file: /a, key_file: /b}}', ''],
  ])('refuses a root of its own on each of many nodes: %s', async (text, why) => {
    const result = await parseConfig('/c.yaml', `trust_domain: example.org\n${text}\n`)
    expect('problems' in result ? result.problems.map(({ message }) => message).join() : '').toContain(why)
    expect('problems' in result).toBe(why !== '')
  })

  it('has defaults that a file may spell out', async () => {
    const lines = settingRows()
      .filter((row) => !/^(?:none|required|\/|DIR)|NODE_IP|SERVICE_HOST|in a pod/.test(row.default))
      .map((row) => {
        const parts = row.name.split('.')
        return parts.reduceRight<unknown>(
          (value, part) => ({ [part]: value }),
          /^(?:\[.*\]|\{\}|true|false|\d+)$/.test(row.default) ? JSON.parse(row.default) : row.default,
        )
      })
    const merged = lines.reduce<Record<string, unknown>>(merge, { trust_domain: 'example.org' })
    expect(await parse(JSON.stringify(merged))).toEqual(await parse('trust_domain: example.org'))
  })
})

function merge(into: Record<string, unknown>, part: unknown): Record<string, unknown> {
  for (const [name, value] of Object.entries(part as Record<string, unknown>)) {
    const isBranch = typeof value === 'object' && value !== null && !Array.isArray(value)
    into[name] = isBranch ? merge((into[name] ?? {}) as Record<string, unknown>, value) : value
  }
  return into
}

it('refuses a reload that changes the trust domain', () => {
  const next = { ...devConfig(), trustDomain: 'other.test' } as Config
  expect(() => checkReload(devConfig(), next)).toThrowError(/cannot change while the agent runs/)
})

describe('addresses and names of a pod', () => {
  const parse = (text: string) => parseConfig('/etc/holdfast/holdfast.yaml', `trust_domain: a.test\n${text}`)
  afterEach(() => vi.unstubAllEnvs())

  it('listens on the address of the pod', async () => {
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '10.96.0.1')
    vi.stubEnv('POD_IP', '10.244.0.7')
    const result = await parse('ops: {listen: "pod:9465"}\nauthority: {nodes: many, separate_roots: true}\n')
    expect('config' in result && result.config.ops.listen).toEqual({ host: '10.244.0.7', port: 9465 })
  })

  it('says what is missing outside of one', async () => {
    const result = await parse('ops: {listen: "pod:9465"}\n')
    expect('problems' in result && result.problems[0]?.message).toMatch(/^ops\.listen: pod:PORT wants POD_IP/)
  })

  it.each(['egress.sock', '../socket', ''])('takes no socket alias %j', async (alias) => {
    expect('problems' in (await parse(`socket_aliases: [${JSON.stringify(alias)}]\n`))).toBe(true)
  })
})
