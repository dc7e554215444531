/** Listeners of one signal behind one: each hears once, none after it has stopped, all in spite of one that throws. */
import { describe, expect, it, vi } from 'vitest'
import { onAbort } from '../../../src/base/on-abort.ts'

describe('who waits for a signal', () => {
  it('hears once, at once where it has aborted already', () => {
    const ending = new AbortController()
    const heard: string[] = []
    onAbort(ending.signal, () => heard.push('before'))
    expect(heard).toEqual([])
    ending.abort()
    ending.abort()
    onAbort(ending.signal, () => heard.push('after'))
    expect(heard).toEqual(['before', 'after'])
  })

  it('hears nothing once it has stopped, the same function of another as little as its own', () => {
    const ending = new AbortController()
    const then = vi.fn()
    const stop = onAbort(ending.signal, then)
    onAbort(ending.signal, then)
    stop()
    stop()
    ending.abort()
    expect(then).toHaveBeenCalledTimes(1)
  })

  it('is stopped by one that hears before it', () => {
    const ending = new AbortController()
    const late = vi.fn()
    let stop = () => {}
    onAbort(ending.signal, () => stop())
    stop = onAbort(ending.signal, late)
    ending.abort()
    expect(late).not.toHaveBeenCalled()
  })

  it('hears though another throws, which is thrown at the process', () => {
    const ending = new AbortController()
    const thrown: (() => void)[] = []
    const nextTick = vi
      .spyOn(process, 'nextTick')
      .mockImplementation((then) => void thrown.push(then as () => void))
    const late = vi.fn()
    onAbort(ending.signal, () => {
      throw new Error('of the first')
    })
    onAbort(ending.signal, late)
    ending.abort()
    nextTick.mockRestore()
    expect(late).toHaveBeenCalledTimes(1)
    expect(thrown).toHaveLength(1)
    expect(thrown[0]).toThrow('of the first')
  })
})
