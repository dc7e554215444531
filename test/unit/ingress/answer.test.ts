/** What a service is told of a request is its own: what it does to it is nothing to the next request of the same token. */
import { expect, it } from 'vitest'
import { answerOf } from '../../../src/ingress/answer.ts'
import { openVerifier } from '../../support/verifier.ts'

it('an answer that its service changes changes no other', async () => {
  const v = await openVerifier()
  const token = v.token({ aud: ['https://api.example.org'], act: { sub: 'gate' } })
  const next = async () => answerOf(await v.verify(v.request({ token })))
  const first = await next()
  const before = structuredClone(first)
  for (const list of [first.caller.scopes, first.caller.names, first.caller.actors, first.claims['aud']])
    (list as string[]).push('write')
  Object.assign(first.claims, { sub: 'eve' })
  Object.assign(first.caller, { client_id: 'eve' })
  expect(await next()).toEqual(before)
})
