import { describe, expect, it } from 'vitest'
import { Health } from '../../../src/telemetry/health.ts'

const degradation = (code: string, message = 'm') => ({ code, message, action: 'a' })

describe('Health', () => {
  it('is ready when everything that began is done, in any order', () => {
    const health = new Health()
    expect(health.ready).toBe(true)
    health.begin('authority')
    health.begin('socket')
    health.done('authority')
    expect([health.ready, health.pending]).toEqual([false, ['socket']])
    health.done('socket')
    expect([health.ready, health.pending]).toEqual([true, []])
  })

  it('holds one degradation a code, the newest, until it recovers', () => {
    const health = new Health()
    health.degrade(degradation('policy_reload', 'first'))
    health.degrade(degradation('policy_reload', 'second'))
    health.degrade(degradation('pidfd_missing'))
    expect(health.degraded.map(({ message }) => message)).toEqual(['second', 'm'])
    health.recover('policy_reload')
    expect(health.degraded.map(({ code }) => code)).toEqual(['pidfd_missing'])
  })

  it('is ready though degraded', () => {
    const health = new Health()
    health.degrade(degradation('policy_reload'))
    expect(health.ready).toBe(true)
  })

  it('tells of each change once, and of nothing that did not change', () => {
    const health = new Health()
    let calls = 0
    const stop = health.watch(() => calls++)
    const steps: (() => void)[] = [
      () => health.begin('socket'),
      () => health.begin('socket'),
      () => health.done('socket'),
      () => health.done('socket'),
      () => health.degrade(degradation('x')),
      () => health.degrade(degradation('x')),
      () => health.degrade(degradation('x', 'new')),
      () => health.recover('x'),
      () => health.recover('x'),
    ]
    const told = steps.map((step) => {
      const before = calls
      step()
      return calls - before
    })
    expect(told).toEqual([1, 0, 1, 0, 1, 0, 1, 1, 0])
    stop()
    health.begin('again')
    expect(calls).toBe(5)
  })
})
