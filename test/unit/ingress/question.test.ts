import { describe, expect, it } from 'vitest'
import { parseQuestion } from '../../../src/ingress/question.ts'
import { faultOf } from '../../support/faults.ts'

const asking = (name: string) => () =>
  parseQuestion({ method: 'GET', path: '/v1/items', headers: [[name, 'forged']] })

describe('headers of a question', () => {
  it.each(['X_Holdfast_Caller', 'x-holdfast_subject', 'X_Holdfast-Scopes', 'x_holdfast_anything'])(
    'are refused when CGI would take one for a header of ours: %s',
    (name) => expect(faultOf(asking(name))).toMatch(/^invalid_request: a header has the name of one of ours/),
  )

  it.each(['X-Holdfast-Caller', 'x_other', 'ax_holdfast_caller'])('are read otherwise: %s', (name) => {
    expect(asking(name)().headers).toEqual([name, 'forged'])
  })
})
