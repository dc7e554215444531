/** A denylist in a file: read before anything is verified, read again when it changes; the last good one stays. */
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { readTrusted } from '../base/trusted.ts'
import { watchFiles } from '../base/watch.ts'
import type { Denylist } from './denylist.ts'
import { LIST_BYTES, parseDenylist } from './denylist-text.ts'

export interface DenylistFileOptions {
  readonly clock: Clock
  readonly file: string
  readonly denylist: Denylist
  /** Why the newest text is not in force; undefined when it is. */
  readonly onState: (fault: Fault | undefined) => void
}

/** Throws config_invalid, policy_writable when it cannot be had at start: a verifier does not begin without it. */
export async function openDenylistFile(options: DenylistFileOptions): Promise<{ stop(): void }> {
  const { clock, denylist, file, onState } = options
  const load = async () => {
    const text = readTrusted(file, { maxBytes: LIST_BYTES }).toString('utf8')
    denylist.replace('file', await parseDenylist(file, text))
  }
  // Before the first read, so that no change falls in between.
  let turn: Promise<void> = Promise.resolve()
  const again = () => {
    turn = turn.then(load).then(
      () => onState(undefined),
      (error: unknown) => onState(Fault.from(error, 'config_invalid')),
    )
  }
  const watch = watchFiles([file], clock, again)
  try {
    await load()
  } catch (error) {
    watch.close()
    throw error
  }
  return { stop: () => watch.close() }
}
