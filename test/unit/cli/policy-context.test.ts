import { describe, expect, it } from 'vitest'
import { policyContext } from '../../../src/cli/policy-context.ts'
import { devConfig, parseConfig } from '../../../src/config.ts'

const contextOf = async (text: string) => {
  const result = await parseConfig('holdfast.yaml', `trust_domain: example.org\n${text}`)
  if ('problems' in result) throw new Error(JSON.stringify(result.problems))
  return policyContext(result.config, () => 0)
}

describe('what a configuration says of policy', () => {
  it.each([
    ['', false],
    ['wit: on\n', false],
    ['wit: on\ntokens: { client_attestation: on }\n', true],
  ])('after %j lets clients attest themselves: %s', async (text, expected) => {
    expect((await contextOf(text)).attestation).toBe(expected)
  })

  it('is off in development too', () => {
    expect(policyContext(devConfig(), () => 0).attestation).toBe(false)
  })

  it('holds the lives of SVIDs and how many nodes there are', async () => {
    expect(
      await contextOf('svid: { jwt_ttl: 1m }\nauthority: { nodes: many, separate_roots: true }\n'),
    ).toMatchObject({
      trustDomain: 'example.org',
      defaults: { jwtTtl: 60, x509Ttl: 3600 },
      nodes: 'many',
    })
  })
})
