/**
 * The yardstick: grpc-js alone behind the same interface, with answers of the same size, without attestation, policy and
 * audit: what a server on the usual library costs on this machine that does nothing else.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cpuMicros } from './meter.ts'

/** A running one. */
export interface BareGrpc {
  readonly pid: number
  readonly socket: string
  cpu(): number
  stop(): void
}

/** Starts one in a process of its own. */
export async function startBareGrpc(): Promise<BareGrpc> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-bare-'))
  const socket = join(dir, 'bare.sock')
  const child: ChildProcess = fork(fileURLToPath(new URL('bare-server.js', import.meta.url)), [socket])
  await once(child, 'message')
  const pid = child.pid ?? 0
  return {
    pid,
    socket,
    cpu: () => cpuMicros(pid),
    stop: () => {
      child.kill()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
