/** Everything attestation asks of the kernel, in one place, so that tests can answer in its stead. */
import * as native from '../base/native.ts'
import type { Cgroup } from './cgroup.ts'
import { type ProcessFacts, pids, readCgroups, readProcess, readProgramPath } from './proc.ts'

export interface Kernel {
  peerCredentials(fd: number): native.PeerCredentials
  peerGroups(fd: number): readonly number[]
  peerPidfd(fd: number): number | undefined
  openPidfd(pid: number): number | undefined
  isPidfdAlive(pidfd: number): boolean
  endedPidfds(pidfds: readonly number[]): readonly number[]
  closeFd(fd: number): void
  fileIdentity(path: string): native.FileIdentity | undefined
  cachedFileIdentity(path: string): native.FileIdentity | undefined
  fileVersion(path: string): string | undefined
  fileAttribute(path: string, name: string): string | undefined
  pids(): readonly number[]
  readProcess(pid: number): ProcessFacts | undefined
  readCgroups(pid: number): readonly Cgroup[]
  readProgramPath(pid: number): string | undefined
}

export const systemKernel: Kernel = { ...native, pids, readProcess, readCgroups, readProgramPath }
