/** The picture of the hops: where the proof was checked, and where it was dropped. Inline SVG without style or script. */
import { escaped } from './escape.ts'
import type { PlaceReport, ProbeReport } from './run.ts'
import type { Result } from './verdict.ts'

const WIDTH = 190
const GAP = 56
const HEIGHT = 92
const TOP = 14
const LEFT = 8
const NAME_LIMIT = 16

type State = 'checked' | 'dropped' | 'open' | 'risky' | 'unclear' | 'unreached' | 'accepted'

const WORDS: Readonly<Record<State, string>> = {
  checked: 'proof checked',
  dropped: 'PROOF DROPPED',
  open: 'THIEF LET IN',
  risky: 'AT RISK',
  unclear: 'not clear',
  unreached: 'not reached',
  accepted: 'risk accepted',
}

/** What the cases at one place say together. */
export function stateOf(place: PlaceReport, results: readonly Result[]): State {
  const here = results.filter((result) => result.place === place.name)
  const has = (verdict: Result['verdict']) => here.some((result) => result.verdict === verdict)
  const broken = here.filter(({ verdict }) => verdict === 'broken')
  if (broken.some((result) => result.case === 'no_proof')) return 'dropped'
  if (broken.length > 0) return broken.some(({ expected }) => expected === 'refused') ? 'open' : 'risky'
  if (place.genuine === 'unreached') return 'unreached'
  if (has('unclear') || here.length === 0) return 'unclear'
  return has('accepted') ? 'accepted' : 'checked'
}

export function pictureOf({ places, results }: Pick<ProbeReport, 'places' | 'results'>): string {
  const boxes = [
    { name: 'probe', line: 'key and token', state: 'probe' },
    ...places.map((place) => {
      const state = stateOf(place, results)
      return { name: place.name, line: WORDS[state], state }
    }),
  ]
  const width = LEFT * 2 + boxes.length * WIDTH + (boxes.length - 1) * GAP
  const title = boxes.map(({ name, line }) => `${name}: ${line}`).join(', ')
  return [
    `<svg class="hops" viewBox="0 0 ${width} ${HEIGHT + TOP * 2}" role="img" aria-label="${escaped(title)}">`,
    ...boxes.map((box, index) => boxText(box, index)),
    ...boxes.slice(1).map(({ state }, index) => arrowText(index, state)),
    '</svg>',
  ].join('\n')
}

interface Box {
  readonly name: string
  readonly line: string
  readonly state: string
}

function boxText({ name, line, state }: Box, index: number): string {
  const x = LEFT + index * (WIDTH + GAP)
  const middle = x + WIDTH / 2
  const shown = name.length > NAME_LIMIT ? `${name.slice(0, NAME_LIMIT)}…` : name
  return [
    `<g class="${state}">`,
    `<rect x="${x}" y="${TOP}" width="${WIDTH}" height="${HEIGHT}" rx="10"/>`,
    `<text class="name" x="${middle}" y="${TOP + 38}" text-anchor="middle">${escaped(shown)}</text>`,
    `<text class="word" x="${middle}" y="${TOP + 66}" text-anchor="middle">${escaped(line)}</text>`,
    '</g>',
  ].join('')
}

function arrowText(index: number, state: string): string {
  const from = LEFT + index * (WIDTH + GAP) + WIDTH
  const to = from + GAP
  const y = TOP + HEIGHT / 2
  const head = `<path class="head" d="M${to - 12} ${y - 7} L${to - 2} ${y} L${to - 12} ${y + 7} Z"/>`
  return `<g class="arrow ${state}"><path class="shaft" d="M${from + 2} ${y} H${to - 12}"/>${head}</g>`
}
