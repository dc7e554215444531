import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { REASONS } from '../../../src/base/reasons.ts'
import { type Labels, openMetrics } from '../../../src/telemetry/metrics.ts'

describe('Metrics', () => {
  it('renders every counter with its help, those never counted as 0', async () => {
    const metrics = openMetrics()
    metrics.count('holdfast_proofs_total', { kind: 'dpop' })
    metrics.count('holdfast_proofs_total', { kind: 'dpop' }, 2)
    metrics.count('holdfast_proofs_total', { kind: 'wpt' })
    const text = await metrics.render()
    expect(text).toContain(
      '# HELP holdfast_proofs_total Proofs made, by kind.\n# TYPE holdfast_proofs_total counter\n',
    )
    expect(text).toContain('\nholdfast_proofs_total{kind="dpop"} 3\nholdfast_proofs_total{kind="wpt"} 1\n')
    expect(text).toMatch(/^holdfast_revocations_total 0$/m)
  })

  it('takes the same labels in any order of calls, and different ones side by side', async () => {
    const metrics = openMetrics()
    metrics.count('holdfast_requests_total', { rpc: 'SignProof', reason: 'ok' })
    metrics.count('holdfast_requests_total')
    const text = await metrics.render()
    expect(text).toMatch(/^holdfast_requests_total\{rpc="SignProof",reason="ok"\} 1$/m)
    expect(text).toMatch(/^holdfast_requests_total 1$/m)
  })

  it('reads gauges at each scrape and leaves out one that throws', async () => {
    const metrics = openMetrics()
    let value = 1
    metrics.gauge('holdfast_connections', 'Open connections.', () => value)
    metrics.gauge('holdfast_broken', 'Broken.', () => {
      throw new Error('gone')
    })
    expect(await metrics.render()).toMatch(/^holdfast_connections 1$/m)
    value = 2
    const text = await metrics.render()
    expect(text).toMatch(/^holdfast_connections 2$/m)
    expect(text).not.toContain('holdfast_broken')
  })

  it('shows what the process uses', async () => {
    const text = await openMetrics().render()
    for (const name of ['process_resident_memory_bytes', 'process_open_fds', 'nodejs_eventloop_lag_seconds'])
      expect(text).toMatch(new RegExp(`^${name} `, 'm'))
  })

  it.each<[string, Labels]>([
    ['a SPIFFE ID', { kind: 'spiffe://a.test/web' }],
    ['a path', { kind: '/run/holdfast/x' }],
    ['a pid', { kind: '4711' }],
    ['a thumbprint', { kind: '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I' }],
    ['a jti', { kind: 'aB3dE6gH9jK2mN5pQ8sT1v' }],
    ['a token', { kind: 'eyJhbGciOiJFUzI1NiJ9.e30.c2ln' }],
    ['an audience', { kind: 'https://api.example.test' }],
    ['a line feed', { kind: 'a\nb 1' }],
    ['an odd name', { 'a"b': 'canary' }],
  ])('holds no identity: %s is counted without labels', async (_what, labels) => {
    const metrics = openMetrics()
    metrics.count('holdfast_refusals_total', labels)
    const text = await metrics.render()
    expect(text).toMatch(/^holdfast_refusals_total 1$/m)
    expect(text).toMatch(/^holdfast_series_dropped_total 1$/m)
    expect(text).not.toContain(Object.values(labels)[0])
  })

  it('takes every reason as a label', async () => {
    const metrics = openMetrics()
    for (const reason of Object.keys(REASONS)) metrics.count('holdfast_refusals_total', { reason })
    expect(await metrics.render()).toMatch(/^holdfast_series_dropped_total 0$/m)
  })

  it('holds at most 1,000 series and counts the rest without labels', async () => {
    const metrics = openMetrics()
    for (let series = 0; series < 5_000; series++)
      metrics.count('holdfast_refusals_total', { reason: `r${series}` })
    const lines = (await metrics.render())
      .split('\n')
      .filter((line) => line.startsWith('holdfast_refusals_total'))
    expect(lines).toHaveLength(1_001)
    expect(lines).toContain('holdfast_refusals_total 4000')
  })

  it('loads its library at the first scrape only', () => {
    const source = new URL('../../../src', import.meta.url).pathname
    const importers = readdirSync(source, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .filter((name) => /from '(?:prom-client|[./]+exposition\.ts)'/.test(withoutTypes(join(source, name))))
    expect(importers).toEqual(['telemetry/exposition.ts'])
  })
})

function withoutTypes(file: string): string {
  return readFileSync(file, 'utf8').replace(/^import type .*$/gm, '')
}
