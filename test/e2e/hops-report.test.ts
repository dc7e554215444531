/** The HTML report in a real browser, on screen and on paper: legible, and nothing in it runs, is asked for or leaves. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasChromium, openChromium, type Page, type TestChromium } from '../support/chromium.ts'
import { startHostileService } from '../support/hostile-service.ts'
import { openProbeLab, type ProbeLab } from '../support/probe-lab.ts'
import { startProbedService } from '../support/probed-service.ts'
import { until } from '../support/until.ts'

let lab: ProbeLab
let chromium: TestChromium

beforeAll(async () => {
  if (!hasChromium) throw new Error('chromium is missing: install it (Debian: chromium), or run .ci/tools')
  lab = await openProbeLab()
  chromium = await openChromium()
})
afterAll(async () => {
  await chromium?.[Symbol.asyncDispose]()
  await lab?.[Symbol.asyncDispose]()
})

const REPORTS = {
  'all refused': async (html: string) => {
    await using service = await startProbedService({ rig: lab.rig })
    await lab.run(service, { html, quick: true, audit: [`orders=${service.auditFile}`] })
  },
  'a thief let in, four places and an accepted risk': async (html: string) => {
    await using front = await startProbedService({ rig: lab.rig, flaws: ['drops_proof', 'cache'] })
    await using inner = await startProbedService({ rig: lab.rig, publicOrigin: front.origin })
    const risk = {
      case: 'shared_cache',
      approver: 'Ann Smith',
      until: '2090-01-01',
      reason: 'the cache goes in May',
    }
    const [edge, mesh] = [
      `edge=${front.origin}/v1/items`,
      `service-mesh-ingress-gateway=${inner.origin}/v1/items`,
    ]
    await lab.run(front, {
      html,
      quick: true,
      hop: [edge, mesh],
      behind: `${inner.origin}/v1/items?with=a-query`,
      accept: lab.rig.file('risks.yaml', JSON.stringify({ accept: [risk] })),
    })
  },
  'a hostile service': async (html: string) => {
    await using hostile = await startHostileService(lab.rig.ca, 'markup and bidi marks', 1)
    await lab.run(hostile, { html, quick: true })
  },
} as const

type Name = keyof typeof REPORTS

async function written(name: Name): Promise<string> {
  const html = join(lab.rig.dir, `${name.replaceAll(/\W+/g, '-')}.html`)
  await REPORTS[name](html)
  return html
}

/** For those who want to look: HOLDFAST_REPORT_PICTURES names a directory. */
function keep(name: string, bytes: Buffer): void {
  const dir = process.env['HOLDFAST_REPORT_PICTURES']
  if (dir) writeFileSync(join(dir, name.replaceAll(/[^\w.]+/g, '-')), bytes)
}

/** Nothing is wider than the page or than its box. */
async function expectFitting(page: Page): Promise<void> {
  expect(
    await page.evaluate<number>(
      'document.documentElement.scrollWidth - document.documentElement.clientWidth',
    ),
  ).toBeLessThanOrEqual(0)
  const spilt = `[...document.querySelectorAll('svg g:has(rect)')].flatMap((group) => {
    const box = group.querySelector('rect').getBoundingClientRect()
    return [...group.querySelectorAll('text')]
      .filter((text) => { const { left, right } = text.getBoundingClientRect(); return left < box.left || right > box.right })
      .map((text) => text.textContent)
  })`
  expect(await page.evaluate(spilt)).toEqual([])
  const overlapping = `[...document.querySelectorAll('tr')].flatMap((row) => {
    const cells = [...row.children]
    return cells.filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.textContent)
  })`
  expect(await page.evaluate(overlapping)).toEqual([])
}

describe.each(Object.keys(REPORTS) as Name[])('the report of %s', (name) => {
  let file: string

  beforeAll(async () => {
    file = await written(name)
  })

  it.each([1280, 400])('fits a window of %i pixels in its own style, and asks for nothing', async (width) => {
    const page = await chromium.open(file, width)
    keep(`${name}-${width}.png`, await page.screenshot())
    expect([page.requests, page.complaints]).toEqual([[], []])
    await expectFitting(page)
    // The style is in force: its hash is the one of the policy.
    expect(await page.evaluate('getComputedStyle(document.querySelector("table")).borderCollapse')).toBe(
      'collapse',
    )
    expect(
      await page.evaluate(
        'document.querySelectorAll("script, img, link, iframe, object, embed, form, a").length',
      ),
    ).toBe(0)
    expect(await page.evaluate('document.querySelectorAll("h1, table, svg").length')).toBe(3)
  })

  it('fits a sheet of paper, where no row is cut and the head of the table is on each page', async () => {
    const page = await chromium.open(file, 720)
    await page.onPaper()
    await expectFitting(page)
    const style = (selector: string, property: string) =>
      page.evaluate(`getComputedStyle(document.querySelector(${JSON.stringify(selector)})).${property}`)
    expect([
      await style('thead', 'display'),
      await style('tbody tr', 'breakInside'),
      await style('.mark', 'printColorAdjust'),
    ]).toEqual(['table-header-group', 'avoid', 'exact'])
    const pdf = await page.pdf()
    keep(`${name}.pdf`, pdf)
    expect(pdf.subarray(0, 5).toString()).toBe('%PDF-')
    const pages = pdf.toString('latin1').match(/\/Type \/Page\b/g)?.length
    expect(pages).toBeGreaterThan(0)
    expect(pages).toBeLessThan(9)
  })
})

it('lets nothing run, and nothing be asked for, that somebody smuggles into it', async () => {
  const file = await written('all refused')
  const smuggled = `<script>document.title = 'owned'</script><img src="https://attacker.invalid/x.png" onerror="document.title = 'owned'">
    <p id="styled" style="color: rgb(1, 2, 3)">x</p><form action="https://attacker.invalid/"><button>x</button></form>`
  const spoilt = lab.rig.file(
    'spoilt.html',
    readFileSync(file, 'utf8').replace('</main>', () => `${smuggled}</main>`),
  )
  const page = await chromium.open(spoilt)
  expect(await page.evaluate('document.title')).toMatch(/^Replay lab: /)
  expect(await page.evaluate('getComputedStyle(document.querySelector("#styled")).color')).not.toBe(
    'rgb(1, 2, 3)',
  )
  await page.evaluate('document.querySelector("form").submit()')
  expect(page.complaints.join('\n')).toContain('ContentSecurityPolicyIssue')
  await until('the image to be refused', () => page.requests.length === 0)
  expect(await page.evaluate('location.protocol')).toBe('file:')
})
