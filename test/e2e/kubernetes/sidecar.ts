/** deploy/examples/kubernetes/sidecar.yaml as it is: an app that speaks to a port, beside `holdfast sidecar`. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ROOT } from '../../support/built-agent.ts'
import type { Json } from '../../support/cluster/api.ts'
import { containerOf, logOf, untilReady } from '../../support/cluster/pods.ts'
import { objectOf, parseManifests } from '../../support/manifests.ts'
import { until } from '../../support/until.ts'
import { applyAll, type Release } from './release.ts'

const EXAMPLES = join(ROOT, 'deploy/examples/kubernetes')
const read = (name: string) => parseManifests(readFileSync(join(EXAMPLES, name), 'utf8'))

export function sidecarSuite(release: () => Release): void {
  it('gives an app that knows ports alone the answers of a service', async () => {
    const { cluster } = release()
    const pod: Json = objectOf(read('sidecar.yaml'), 'Pod')
    await applyAll(cluster, [objectOf(read('app.yaml'), 'ServiceAccount'), pod])
    const ready = await untilReady(cluster, pod)
    const log = () => logOf(cluster, pod, 'app')
    await until('an answer for the app', async () => (await log()).includes('orders'), 40_000).catch(
      async (error) => {
        throw new Error(`${error.message}\n${await log()}\n${await logOf(cluster, pod, 'holdfast')}`)
      },
    )
    const run = (...command: readonly string[]) =>
      cluster.containers.exec(containerOf(ready, 'app'), command, '10001:10001')
    const secret = '"Holdfast-Secret: $(cat /secret/secret)"'
    const curl = (header: string, more = '') =>
      run(
        '/bin/sh',
        '-c',
        `curl -sS -i -H ${header} -H "Host: orders" ${more} http://127.0.0.1:8181/v1/items`,
      )
    expect((await curl(secret)).out).toMatch(/^HTTP\/1.1 200 [\s\S]*orders$/)
    // The entry asks for the sidecar's container, which the app is not.
    const door = '/run/holdfast/public'
    expect((await run('/bin/busybox', 'ls', door)).code).not.toBe(0)
    expect((await curl('"Holdfast-Secret: of-somebody-else"')).out).toMatch(/^HTTP\/1.1 40[13] /)
  }, 90_000)
}
