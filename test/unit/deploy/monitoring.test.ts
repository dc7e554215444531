/** Alerts and dashboard look at what the agent counts, and lead to pages that exist. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { REASONS } from '../../../src/base/reasons.ts'
import { openMetrics } from '../../../src/telemetry/metrics.ts'

const ROOT = new URL('../../..', import.meta.url).pathname
const FILES = join(ROOT, 'deploy/helm/holdfast/files')

// biome-ignore lint/suspicious/noExplicitAny: tests read members of what they assert on.
type Json = any

const rules: readonly Json[] = parse(readFileSync(join(FILES, 'alerts.yaml'), 'utf8')).groups.flatMap(
  (group: Json) => group.rules,
)
const alerts = rules.filter((rule) => rule.alert)
const dashboard: Json = JSON.parse(readFileSync(join(FILES, 'dashboard.json'), 'utf8'))
const panels: readonly Json[] = dashboard.panels

const source = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => readFileSync(join(ROOT, 'src', name), 'utf8'))
  .join('\n')
const known = new Set([...source.matchAll(/'(holdfast_[a-z_]+)'/g)].map((match) => match[1] ?? ''))
/** Counted by Prometheus clients and by kube-state-metrics. */
const FOREIGN =
  /^(?:process_(?:resident_memory_bytes|cpu_seconds_total)|kube_daemonset_status_(?:number_unavailable|updated_number_scheduled|desired_number_scheduled)|kube_job_status_failed)$/

const metricsIn = (expr: string) =>
  [...expr.matchAll(/(?<![":\w])([a-z]+_[a-z_]+)(?=\{|\[|\s|\)|$)/g)].map((match) => match[1] ?? '')

describe('alerts', () => {
  it.each(rules.map((rule) => [rule.alert ?? `${rule.record} ${rule.labels.door}`, rule]))(
    '%s looks at metrics of the agent',
    (_name, rule) => {
      const recorded = rules.flatMap(({ record }) => (record ? [record] : []))
      const text = recorded.reduce((expr, record) => expr.replaceAll(record, ''), rule.expr as string)
      const names = metricsIn(text)
      expect(names.length + Number(text !== rule.expr)).toBeGreaterThan(0)
      expect(names.filter((name) => !known.has(name) && !FOREIGN.test(name))).toEqual([])
    },
  )

  it.each(alerts.map((alert) => [alert.alert, alert]))('%s leads to the page of a reason', (_name, alert) => {
    const [, anchor = ''] =
      /^https:\/\/holdfast\.dev\/reasons#(.+)$/.exec(alert.annotations.runbook_url) ?? []
    if (anchor === '{{ $labels.reason }}') expect(alert.expr).toMatch(/reason/)
    else expect(Object.keys(REASONS)).toContain(anchor)
  })

  it('are there for each owner of a reason', () => {
    const owners = new Set(Object.values(REASONS).map(({ owner }) => owner))
    const asked = alerts.flatMap(({ expr }) => /owner="([a-z]+)"/.exec(expr)?.[1] ?? [])
    expect(asked.sort()).toEqual([...owners].sort())
  })

  it('have an owner each, and a sentence', () => {
    for (const { annotations, labels, expr } of alerts) {
      expect(annotations.summary).toMatch(/\w/)
      expect(labels.owner ?? /by \(namespace, (owner)/.exec(expr)?.[1]).toBeDefined()
    }
  })
})

describe('the dashboard', () => {
  it.each(panels.map((panel) => [panel.title, panel]))('%s shows metrics of the agent', (_name, panel) => {
    const names = panel.targets.flatMap(({ expr }: Json) =>
      metricsIn(expr.replace(/\bsum by \([a-z, ]+\)/g, '')),
    )
    expect(names.length).toBeGreaterThan(0)
    expect(names.filter((name: string) => !known.has(name) && !FOREIGN.test(name))).toEqual([])
  })

  it('shows what is only observed, apart from what is right', () => {
    const exprs: readonly string[] = panels.flatMap(({ targets }) => targets.map(({ expr }: Json) => expr))
    expect(exprs.filter((expr) => /holdfast_verified_total\{[^}]*observed!=""/.test(expr))).toHaveLength(1)
  })

  it('has panels that do not lie on each other', () => {
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, index) => `${x + (index % w)},${y + Math.floor(index / w)}`),
    )
    expect(new Set(cells).size).toBe(cells.length)
  })
})

it('a count with a reason says who has to act', async () => {
  const metrics = openMetrics()
  metrics.count('holdfast_requests_total', { method: 'dpop', reason: 'no_identity' })
  metrics.count('holdfast_requests_total', { method: 'dpop', reason: 'ok' })
  const text = await metrics.render()
  expect(text).toContain('holdfast_requests_total{method="dpop",reason="no_identity",owner="identity"} 1')
  expect(text).toContain('holdfast_requests_total{method="dpop",reason="ok"} 1')
})
