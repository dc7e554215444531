import { existsSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { watchClone } from '../../../src/base/clone.ts'
import { closeFd, openUevents, readUevent } from '../../../src/base/native.ts'
import { ManualClock } from '../../support/clock.ts'

const LOOPBACK = '/sys/class/net/lo/uevent'
const CLONED = ['change@/devices/vmgenid', 'ACTION=change', 'NEW_VMGENID=1']

function watched(reports: (readonly string[])[]) {
  const clock = new ManualClock()
  let count = 0
  const open = () => 1_000_000
  const stop = watchClone(clock, () => (count += 1), { open, read: () => reports.shift() })
  return { clock, stop, count: () => count }
}

it('tells of a copy of the machine once, and of no other report', () => {
  const reports = [['change@/devices/virtual/net/lo', 'ACTION=change'], CLONED, CLONED]
  const { clock, count } = watched(reports)
  clock.advance(400)
  expect(count()).toBe(0)
  clock.advance(200)
  expect(count()).toBe(1)
  clock.advance(10_000)
  expect(count()).toBe(1)
  reports.push(CLONED)
  clock.advance(500)
  expect(count()).toBe(2)
})

it.each([
  ['a value that only holds it', ['change@/x', 'NAME=NEW_VMGENID=1']],
  ['one that somebody wrote into /sys', ['change@/x', 'SYNTH_ARG_NEW_VMGENID=1']],
  ['one of another process', []],
])('does not believe %s', (_what, report) => {
  const { clock, count } = watched([report])
  clock.advance(1_000)
  expect(count()).toBe(0)
})

it('does nothing where the kernel gives no reports', () => {
  const clock = new ManualClock()
  const stop = watchClone(clock, () => expect.unreachable(), { open: () => undefined })
  clock.advance(10_000)
  stop()
})

it.skipIf(process.getuid?.() !== 0 || !existsSync(LOOPBACK))('hears the kernel of this machine', () => {
  const fd = openUevents()
  if (fd === undefined) return
  writeFileSync(LOOPBACK, 'change')
  const reports: (readonly string[])[] = []
  for (let report = readUevent(fd); report; report = readUevent(fd)) reports.push(report)
  closeFd(fd)
  expect(reports.some((report) => report.includes('ACTION=change') && report.includes('INTERFACE=lo'))).toBe(
    true,
  )
})
