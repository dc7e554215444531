/** Pods of deploy/examples/kubernetes as they are: one whose requests the agent makes, and one that speaks to `holdfast sidecar` by a port. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ROOT } from '../../support/built-agent.ts'
import type { Json } from '../../support/cluster/api.ts'
import type { Cluster } from '../../support/cluster/cluster.ts'
import { containerOf, logOf, untilReady } from '../../support/cluster/pods.ts'
import { objectOf, parseManifests } from '../../support/manifests.ts'
import { until } from '../../support/until.ts'
import { applyAll, type Release } from './release.ts'

const EXAMPLES = join(ROOT, 'deploy/examples/kubernetes')
const read = (name: string) => parseManifests(readFileSync(join(EXAMPLES, name), 'utf8'))
const APP = read('app.yaml')
const SIDECAR: Json = objectOf(read('sidecar.yaml'), 'Pod')
const USER = '10001:10001'

export function examplesSuite(release: () => Release): void {
  it('have the answers of a service, by a socket and by a port', async () => {
    const { cluster } = release()
    await applyAll(cluster, [...APP, SIDECAR])
    for (const pod of [objectOf(APP, 'Pod'), SIDECAR]) {
      await untilReady(cluster, pod)
      const isAnswered = async () => /^orders$/m.test(await logOf(cluster, pod, 'app'))
      await until('an answer for the app', isAnswered, 60_000).catch(async (error) => {
        throw new Error(`${error.message}\n${await logOf(cluster, pod, 'app')}`)
      })
    }
  }, 120_000)

  it('are served at the port for the secret alone', async () => {
    const { cluster } = release()
    const [right, wrong] = ['$(cat /secret/secret)', 'of-somebody-else-of-somebody-else']
    expect(await portAnswer(cluster, right)).toMatch(/^HTTP\/1.1 200 [\s\S]*orders$/)
    expect(await portAnswer(cluster, wrong)).toMatch(/^HTTP\/1.1 403 [\s\S]*secret_refused/)
  }, 60_000)
}

/** What the port of the sidecar says to the app beside it. */
async function portAnswer(cluster: Cluster, secret: string): Promise<string> {
  const pod = await untilReady(cluster, SIDECAR)
  const command = `curl -sS -i -H "Holdfast-Secret: ${secret}" -H "Host: orders" http://127.0.0.1:8181/v1/items`
  const { out, err } = await cluster.containers.exec(
    containerOf(pod, 'app'),
    ['/bin/sh', '-c', command],
    USER,
  )
  return out + err
}
