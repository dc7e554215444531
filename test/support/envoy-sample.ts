/** The configurations to copy of deploy/envoy, with the places of a test put in for those that they name. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { ROOT } from './built-agent.ts'

/** What is put in for each text; one that is not there is a mistake of the test. */
export type Places = Readonly<Record<string, string>>

/** In `egress-signing.yaml`, for targets that ask for no nonces: their answers are not heard. */
export const UNHEARD: Places = {
  'response_header_mode: SEND': 'response_header_mode: SKIP',
  '# - { key: holdfast-answers, value: unheard }': '- { key: holdfast-answers, value: unheard }',
}

/** The bootstrap of `deploy/envoy/NAME` with `places` put in, in their order. */
export function envoySample(name: string, places: Places = {}): object {
  let text = readFileSync(join(ROOT, 'deploy/envoy', name), 'utf8')
  for (const [from, to] of Object.entries(places)) {
    if (!text.includes(from)) throw new Error(`${name} does not say ${from}`)
    text = text.replaceAll(from, to)
  }
  return parse(text) as object
}
