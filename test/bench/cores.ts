/**
 * Which core runs what. On a node there are cores to spare; on one core the agent and those who ask it would push each
 * other's code and data out of its cache at each request, and a signature alone would then cost twice as much.
 */
import { readdirSync } from 'node:fs'
import koffi from 'koffi'

const SET_SIZE = 128
const libc = koffi.load(null)
const getAffinity = libc.func('int sched_getaffinity(int, size_t, _Out_ void *)')
const setAffinity = libc.func('int sched_setaffinity(int, size_t, const void *)')

/** The cores that this process may use, shared out. */
export interface Cores extends Disposable {
  /** Calls `start`, whose child processes have the last core to themselves. */
  apart<T>(start: () => T): T
}

/** Until it is disposed of, this process and the children that it starts keep off the last core, where there is another. */
export function shareCores(): Cores {
  const all = Buffer.alloc(SET_SIZE)
  if (getAffinity(0, SET_SIZE, all) !== 0) throw new Error('sched_getaffinity fails')
  const numbers = [...all.keys()].flatMap((at) => bitsOf(all[at] as number).map((bit) => at * 8 + bit))
  const [last, ...others] = numbers.reverse()
  if (last === undefined || others.length === 0)
    return { apart: (start) => start(), [Symbol.dispose]: () => {} }
  const [own, rest] = [setOf([last]), setOf(others)]
  keepTo(rest)
  return {
    apart: (start) => {
      keepTo(own)
      try {
        return start()
      } finally {
        keepTo(rest)
      }
    },
    [Symbol.dispose]: () => keepTo(all),
  }
}

/** All threads of this process; new ones do as the one that begins them. */
function keepTo(set: Buffer): void {
  for (const thread of readdirSync('/proc/self/task')) setAffinity(Number(thread), SET_SIZE, set)
}

function bitsOf(octet: number): readonly number[] {
  return [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => octet & (1 << bit))
}

function setOf(cores: readonly number[]): Buffer {
  const set = Buffer.alloc(SET_SIZE)
  for (const core of cores) set[core >> 3] = (set[core >> 3] as number) | (1 << (core & 7))
  return set
}
