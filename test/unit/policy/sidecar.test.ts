/** Targets that the sidecar of a workload connects to: what may be stated of them, and which doors serve them. */
import { describe, expect, it } from 'vitest'
import { decide } from '../../../src/policy/decide.ts'
import { bookOf, LAYERS, problemsIn, question } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'
const SERVERS =
  'servers:\n  - { name: login, issuer: "https://as.example.org", client: { auth: jwt_spiffe } }\ntargets:'

function shop(identity = 'custody: headers', platform = 'via: sidecar') {
  return {
    ...LAYERS,
    identity: LAYERS.identity
      .replace(WHERE, 'server: login')
      .replace('custody: headers', identity)
      .replace('targets:', SERVERS),
    platform: LAYERS.platform.replace(' }', `, ${platform} }`),
  }
}

describe('a target via sidecar', () => {
  it('is refused by egress, with the cure, and served by headers', async () => {
    const book = await bookOf(shop())
    expect(decide(book, question(book, { door: 'egress' }))).toMatchObject({
      allowed: false,
      reason: 'via_sidecar',
      owner: 'platform',
      action: 'Send the request to the port of holdfast sidecar, or set via: agent at platform.yaml:3.',
    })
    expect(decide(book, question(book, { door: 'headers' })).allowed).toBe(true)
  })

  it.each([
    ['custody nothing', shop('custody: nothing'), 'custody is nothing: set custody: headers'],
    ['custody token', shop('custody: token'), 'custody is token: set custody: headers'],
    ['redirects', shop(undefined, 'via: sidecar, redirects: true'), 'redirects are never followed'],
    [
      'a certificate',
      shop('custody: headers\n    binding: [mtls]'),
      'bound by mtls, and a sidecar gets headers only',
    ],
    [
      'a signature over the body',
      shop('custody: headers\n    binding: [dpop, http-signature]'),
      'bound by dpop, http-signature, and a sidecar gets headers only',
    ],
    [
      'exchange',
      shop('custody: headers\n    exchange: { subjects: ["https://as.example.org"] }'),
      'exchange goes with via: agent only',
    ],
    [
      'no port',
      {
        ...shop(),
        platform: LAYERS.platform.replace(
          '["https://orders.example.org"] }',
          '["http://localhost:*"], via: sidecar }',
        ),
      },
      'the first origin has no port of its own',
    ],
  ])('cannot have %s', async (_what, files, message) => {
    const problems = await problemsIn(files)
    expect(problems.join('\n')).toMatch(/platform\.yaml:3: orders is via: sidecar: /)
    expect(problems.join('\n')).toContain(message)
  })
})
