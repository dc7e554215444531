/** The replay lab as the chart schedules it: a CronJob, its Job, the Job's pod, and what all of them say of a service. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { Json } from '../../support/cluster/api.ts'
import type { Cluster } from '../../support/cluster/cluster.ts'
import { logOf } from '../../support/cluster/pods.ts'
import { NAMESPACE } from '../../support/manifests.ts'
import { until } from '../../support/until.ts'
import { type Release, rolledOut } from './release.ts'
import { probeOf } from './release-values.ts'

const BATCH = `/apis/batch/v1/namespaces/${NAMESPACE}`
const CRON_JOB = `${BATCH}/cronjobs/holdfast-probe`

export function probeJobSuite(release: () => Release): void {
  it('probes a service that refuses every thief, and its Job is complete', async () => {
    const { cluster, rig, services, upgrade } = release()
    const { good } = services
    const agent = await rolledOut(cluster)
    good.revokedKeys = () => revokedBy(cluster, agent)
    await upgrade({ probe: probeOf(rig, good, otherSchedule()) })
    const { job, log } = await untilOver(cluster)
    expect([job.status.succeeded, log]).toEqual([1, expect.stringMatching(/ refused, 0 taken/)])
    expect(log).not.toContain('not clear')
  }, 120_000)

  it('probes one that takes a bound token as a bearer, and its Job has failed', async () => {
    const { cluster, rig, services, upgrade } = release()
    const { bad } = services
    bad.revokedKeys = services.good.revokedKeys
    await upgrade({ probe: probeOf(rig, bad, otherSchedule()) })
    const { job, log } = await untilOver(cluster)
    expect([job.status.failed, job.status.conditions.at(-1)]).toEqual([
      1,
      expect.objectContaining({ type: 'Failed', reason: 'BackoffLimitExceeded' }),
    ])
    expect(log).toMatch(/ refused, [1-9]\d* taken/)
  }, 120_000)
}

let asked = 0

/** Each hour, at a minute that is not soon, another one each time: a Job is named by the time that it is for. */
function otherSchedule(): string {
  asked += 1
  return `${(new Date().getMinutes() + 5 + asked * 7) % 60} * * * *`
}

interface Over {
  readonly job: Json
  readonly log: string
}

/** Has the controller believe that it ran last two hours ago: it makes the Job that it has missed. The Job at its end. */
async function untilOver(cluster: Cluster): Promise<Over> {
  const { api } = cluster
  const known = new Set((await jobs(cluster)).map(({ metadata }) => metadata.uid))
  const lastScheduleTime = new Date(Date.now() - 2 * 3_600_000).toISOString().replace(/\.\d+/, '')
  await api.ask(
    'PATCH',
    `${CRON_JOB}/status`,
    { status: { lastScheduleTime } },
    'application/merge-patch+json',
  )
  const job = await until(
    'the Job of the probe to end',
    async () => {
      const made = (await jobs(cluster)).find(({ metadata }) => !known.has(metadata.uid))
      const ends = made?.status.conditions?.filter(
        ({ type }: Json) => type === 'Complete' || type === 'Failed',
      )
      return ends?.length > 0 && made
    },
    90_000,
  ).catch(async (error) => {
    const pods = (await podsOf(cluster)).map((pod) => JSON.stringify(pod.status))
    throw new Error([error.message, ...pods, cluster.node.logOf('controllers')].join('\n'))
  })
  expect(job.metadata.ownerReferences).toMatchObject([{ kind: 'CronJob', name: 'holdfast-probe' }])
  const [pod] = await podsOf(cluster, job.metadata.name)
  return { job, log: await logOf(cluster, pod) }
}

const jobs = async ({ api }: Cluster): Promise<readonly Json[]> =>
  (await api.ask('GET', `${BATCH}/jobs`)).items

async function podsOf({ api }: Cluster, job?: string): Promise<readonly Json[]> {
  const selector = job === undefined ? 'app.kubernetes.io/component=probe' : `job-name=${job}`
  return (await api.ask('GET', `/api/v1/namespaces/${NAMESPACE}/pods?labelSelector=${selector}`)).items
}

/** Keys that the lab has ended, by the agent's audit: the only probe records without a target. Read from the node's disk. */
function revokedBy({ node }: Cluster, { metadata }: Json): ReadonlySet<unknown> {
  const place = join(node.dir, 'kubelet/logs', `${NAMESPACE}_${metadata.name}_${metadata.uid}/agent`)
  const files = existsSync(place) ? readdirSync(place).map((file) => join(place, file)) : []
  const records = files.flatMap((file) => readFileSync(file, 'utf8').split('\n')).flatMap(recordIn)
  return new Set(
    records.flatMap(({ event, target, jkt }) => (event === 'probe' && !target && jkt ? [jkt] : [])),
  )
}

/** What containerd keeps: `TIME stdout F TEXT`. */
function recordIn(line: string): readonly Json[] {
  const text = /^\S+ std\S+ F (\{.*\})$/.exec(line)?.[1]
  return text === undefined ? [] : [JSON.parse(text)]
}
