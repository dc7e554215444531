/** The node itself: what the other suites stand on. */
import { expect, it } from 'vitest'
import { type Cluster, makeNamespace } from '../../support/cluster/cluster.ts'
import { containerOf, deletePod, podOf, startPod, untilGone } from '../../support/cluster/pods.ts'

export function nodeSuite(cluster: () => Cluster): void {
  it('runs a pod in a cgroup of its own, and ends it', async () => {
    await makeNamespace(cluster(), 'node')
    const object = podOf('node', 'waiting')
    const pod = await startPod(cluster(), object)
    const id = containerOf(pod)
    const { out } = await cluster().containers.exec(id, ['/bin/busybox', 'cat', '/proc/self/cgroup'])
    expect(out).toMatch(new RegExp(`/kubepods[^\n]*${pod.metadata.uid.replaceAll('-', '[-_]')}[^\n]*${id}`))
    await deletePod(cluster(), object)
    await untilGone(cluster(), object)
  })
}
