/** Cases about what outlives one proof: cookies, caches, and a query that no proof covers. */
import { fateOf } from './answer.ts'
import { answered, type ProbeCase, spoilt, untried } from './case.ts'
import { tokenMark } from './records.ts'

export const SESSION_CASES: readonly ProbeCase[] = [
  {
    id: 'cookie',
    sends: 'a cookie that was set after a genuine request, without token, and with the token but no proof',
    reasons: ['token_missing', 'proof_missing', 'token_downgraded'],
    owner: 'application',
    cure: 'Set no session cookie where tokens are bound: whoever copies it needs no proof. Else bind the session to the key too.',
    phase: 'now',
    play: async (lab) => {
      const { answer } = await lab.genuine()
      if (fateOf(answer) !== 'taken') return spoilt('the genuine request before it was not taken')
      const cookie = ['Cookie', answer.cookies.join('; ')] as const
      if (answer.otherCookies > 0) return spoilt('a cookie was set that the lab cannot send back')
      if (answer.cookies.length === 0) return { kind: 'observed', isHeld: true, what: 'no cookie was set' }
      return answered(
        ...(await lab.beyond([], [cookie])),
        ...(await lab.beyond(lab.fields(undefined), [cookie])),
      )
    },
  },
  {
    id: 'shared_cache',
    sends:
      'a URL that was just answered to its caller, asked by one without a token and by one with another key',
    reasons: ['token_missing', 'token_stolen'],
    owner: 'platform',
    cure: 'Let the gateway cache no answer to a request with Authorization, and the service say Cache-Control: private or no-store.',
    phase: 'now',
    play: async (lab) => {
      const query = lab.freshQuery()
      const { answer } = await lab.genuine(query)
      if (fateOf(answer) !== 'taken') return spoilt('the genuine request before it was not taken')
      const nobody = await lab.again([], query)
      return answered(nobody, await lab.again(lab.fields(lab.proof({ key: lab.stranger })), query))
    },
  },
  {
    id: 'passed_on',
    sends: 'a genuine request, whose token must not be seen by the services that this one calls',
    reasons: [],
    owner: 'application',
    cure: "Let the service exchange its caller's token for one of its own for each service that it calls (RFC 8693), and send it with a proof of its own.",
    phase: 'now',
    play: async (lab) => {
      const { downstream } = lab.options
      if (!downstream) return untried('no audit of a service further on was named (--downstream-audit)')
      downstream.mark()
      const { answer } = await lab.genuine()
      if (fateOf(answer) !== 'taken') return spoilt('the genuine request was not taken')
      const { own, others } = await downstream.sightings(tokenMark(lab.bound.token))
      if (own) return { kind: 'observed', isHeld: false, what: `its token was shown to ${own.verifier}` }
      if (others === 0) return untried('the request led to no call further on that is on record')
      return { kind: 'observed', isHeld: true, what: 'services further on saw other tokens' }
    },
  },
  {
    id: 'query_swapped',
    sends: 'an unused proof with another query than its caller meant',
    reasons: ['proof_coverage', 'proof_url'],
    owner: 'identity',
    cure: 'Bind requests by HTTP Message Signatures that cover @query (binding: http-signature).',
    phase: 'now',
    play: async (lab) => {
      if (!lab.options.coversQuery)
        return {
          kind: 'uncovered',
          why: 'not covered by DPoP: htu has no query (--covers-query says otherwise)',
        }
      const meant = lab.proof({ claims: { htu: `${lab.options.htu}?${lab.freshQuery()}` } })
      return answered(await lab.send(lab.fields(meant)))
    },
  },
]
