/** How long a pod is who it is: until it is deleted, and no container longer than it runs. */
import { expect, it } from 'vitest'
import { containerOf, deletePod, getPod, untilGone } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { forcedEndings } from './endings.ts'
import { ask, callerCommand, linesOf, type Stage, startCaller } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'
const ITEMS = 'http://orders/v1/items'

export function lifecycleSuite(stage: () => Stage): void {
  it('refuses a pod that was deleted by force while its processes still run, and ends what is open, within 2 s of the list', async () => {
    const { cluster } = stage()
    const endings = await forcedEndings(stage(), '', async (asks) => {
      const after = linesOf(cluster, asks).length
      await until('more answers', () => linesOf(cluster, asks).length > after + 5)
      const others = linesOf(cluster, asks).slice(after)
      expect(others.filter((line) => !line.startsWith('403'))).toEqual([])
    })
    expect(Object.entries(endings).filter(([, ms]) => ms > 2_000)).toEqual([])
  }, 60_000)

  it('keeps a key as long as its container runs, and makes another for the next one', async () => {
    const { cluster } = stage()
    const pod = await startCaller(stage(), 'restarts')
    const keyOf = async (now: unknown) => (await ask(cluster, now, ITEMS, 'egress')).body.jkt
    const key = await keyOf(pod)
    expect(key).toMatch(/./)
    expect(await keyOf(pod)).toBe(key)
    cluster.containers.ctr('task', 'kill', '--signal', 'SIGKILL', containerOf(pod))
    const again = await until(
      'the next container',
      async () => {
        const now = await getPod(cluster, pod)
        const [status] = now.status.containerStatuses
        return status.restartCount === 1 && status.ready ? now : undefined
      },
      30_000,
    )
    expect(await keyOf(again)).not.toBe(key)
  })

  it('gives nothing to a debugger that was put into a pod', async () => {
    const { cluster } = stage()
    const pod = await startCaller(stage(), 'debugged')
    const [{ resources: _none, ...app }] = pod.spec.containers
    const debugger_ = {
      ...app,
      name: 'debugger',
      command: ['/bin/busybox', 'sleep', '1000'],
      targetContainerName: 'app',
    }
    const place = `/api/v1/namespaces/shop/pods/debugged/ephemeralcontainers`
    const patch = { spec: { ephemeralContainers: [debugger_] } }
    await cluster.api.ask('PATCH', place, patch, 'application/strategic-merge-patch+json')
    const id = await until(
      'the debugger',
      async () => {
        const { status } = await getPod(cluster, pod)
        const [found] = status.ephemeralContainerStatuses ?? []
        return found?.state.running && String(found.containerID).replace('containerd://', '')
      },
      30_000,
    )
    const as = { status: { containerStatuses: [{ containerID: id }] } }
    const { status, body } = await ask(cluster, as, IDENTITY)
    expect([status, body.error.reason]).toEqual([403, 'container_refused'])
  })

  it('serves a pod in its grace period, and ends with it', async () => {
    const { cluster } = stage()
    const object = await startCaller(stage(), 'graceful', callerCommand('workload', IDENTITY, 50))
    await until('answers', () => linesOf(cluster, object).length > 3)
    await deletePod(cluster, object)
    await untilGone(cluster, object)
  })
}
