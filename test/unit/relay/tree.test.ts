import { describe, expect, it } from 'vitest'
import type { Parent } from '../../../src/attest/proc.ts'
import { isDescendant } from '../../../src/relay/tree.ts'

/** Processes by pid: parent and start time. */
const tree = (processes: Readonly<Record<number, readonly [number, number]>>) => (pid: number) => {
  const found = processes[pid]
  return found && ({ parent: found[0], startTime: String(found[1]) } satisfies Parent)
}

describe('a process', () => {
  const usual = tree({ 10: [1, 100], 20: [10, 200], 30: [20, 300], 40: [30, 300], 50: [10, 250] })

  it.each([
    ['the command itself', 20],
    ['a child of it', 30],
    ['a grandchild that began in the same tick', 40],
  ])('that is %s is in its tree', (_what, pid) => expect(isDescendant(20, pid, usual)).toBe(true))

  it.each([
    ['its parent', 10],
    ['a sibling', 50],
    ['gone', 99],
  ])('that is %s is not', (_what, pid) => expect(isDescendant(20, pid, usual)).toBe(false))

  it('whose parent has ended and is process 1 now has left it', () => {
    expect(isDescendant(20, 30, tree({ 20: [10, 200], 30: [1, 300] }))).toBe(false)
  })

  it('whose parent began after it has another parent than it seems', () => {
    expect(isDescendant(20, 30, tree({ 20: [10, 400], 30: [20, 300] }))).toBe(false)
  })

  it('in a circle of parents is in no tree', () => {
    expect(isDescendant(20, 30, tree({ 30: [40, 300], 40: [30, 300] }))).toBe(false)
  })
})
