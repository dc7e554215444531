/**
 * Notices that this machine is a copy of another (a snapshot resumed twice): both would hold the same keys. Hypervisors
 * with a VM generation id tell the kernel, which reports `NEW_VMGENID=1`; elsewhere nothing says so.
 */
import type { Clock, Millis } from './clock.ts'
import { closeFd, openUevents, readUevent } from './native.ts'

const PERIOD: Millis = 500
/** More than a machine reports in half a second; what is left waits for the next look. */
const REPORTS_LIMIT = 256

export interface CloneWatchOptions {
  readonly open?: () => number | undefined
  readonly read?: (fd: number) => readonly string[] | undefined
}

/** Calls `cloned` after each copy, where the kernel reports it, until the returned function is called. */
export function watchClone(clock: Clock, cloned: () => void, options: CloneWatchOptions = {}): () => void {
  const fd = (options.open ?? openUevents)()
  if (fd === undefined) return () => {}
  const read = options.read ?? readUevent
  let cancel = () => {}
  const look = () => {
    if (drain(fd, read)) cloned()
    cancel = clock.after(PERIOD, look)
  }
  cancel = clock.after(PERIOD, look)
  return () => {
    cancel()
    closeFd(fd)
  }
}

/** Reads what is waiting; whether one of the reports says that the machine is a copy. */
function drain(fd: number, read: (fd: number) => readonly string[] | undefined): boolean {
  let isClone = false
  for (let count = 0; count < REPORTS_LIMIT; count++) {
    const report = read(fd)
    if (!report) break
    if (report.includes('NEW_VMGENID=1')) isClone = true
  }
  return isClone
}
