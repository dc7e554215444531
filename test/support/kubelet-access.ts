/** What an agent needs to ask a fake kubelet: a folder with its CA and a token, and the client over both. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { ClusterHttps, type ClusterServer } from '../../src/cluster/https.ts'
import { type FakeKubelet, startFakeKubelet } from './fake-kubelet.ts'

export interface KubeletAccess {
  readonly kubelet: FakeKubelet
  /** Holds `ca.crt` and `token`. */
  readonly dir: string
  /** A client of its own; closed with the rest. */
  open(over?: Partial<ClusterServer>): ClusterHttps
  close(): Promise<void>
}

export async function openKubeletAccess(): Promise<KubeletAccess> {
  const kubelet = await startFakeKubelet()
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-kubelet-'))
  writeFileSync(join(dir, 'ca.crt'), kubelet.ca.pem)
  writeFileSync(join(dir, 'token'), 'good\n')
  const opened: ClusterHttps[] = []
  const open = (over: Partial<ClusterServer> = {}) => {
    const https = new ClusterHttps({
      name: 'the kubelet',
      url: kubelet.url,
      verification: { kind: 'cluster-ca', file: join(dir, 'ca.crt') },
      tokenFile: join(dir, 'token'),
      timeout: 5_000,
      clock: systemClock,
      ...over,
    })
    opened.push(https)
    return https
  }
  const close = async () => {
    for (const each of opened) each.close()
    await kubelet.stop()
    rmSync(dir, { recursive: true })
  }
  return { kubelet, dir, open, close }
}
