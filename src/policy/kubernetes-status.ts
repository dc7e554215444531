/** Tells the writers of custom resources, in their status, whether the agents took them. Any agent may be the first to. */
import { Fault } from '../base/fault.ts'
import type { ClusterHttps } from '../cluster/https.ts'
import type { ObjectReport } from './kubernetes-book.ts'
import { API_VERSION, type ClusterObject, PLURALS } from './kubernetes-object.ts'

const WRITES_LIMIT = 100
const FORBIDDEN = 403

/** Writes conditions that are not there yet; an API server that forbids it is not asked again. */
export class StatusWriter {
  readonly #https: ClusterHttps
  readonly #written = new Map<string, string>()
  #isForbidden = false
  #isBusy = false

  constructor(https: ClusterHttps) {
    this.#https = https
  }

  /** Never rejects: a status that is not written is written at the next change. */
  async write(reports: readonly ObjectReport[]): Promise<void> {
    if (this.#isBusy || this.#isForbidden) return
    this.#isBusy = true
    try {
      for (const report of reports.filter((each) => this.#isNews(each)).slice(0, WRITES_LIMIT))
        await this.#writeOne(report)
    } catch (error) {
      if (Fault.from(error).reason === 'bug') throw error
    } finally {
      this.#isBusy = false
    }
  }

  #isNews({ object, isAccepted, message }: ObjectReport): boolean {
    const { accepted, generation, uid } = object
    const isThere =
      accepted?.status === statusOf(isAccepted) &&
      accepted.message === message &&
      accepted.observedGeneration === generation
    return !isThere && this.#written.get(uid) !== textOf({ object, isAccepted, message })
  }

  async #writeOne(report: ObjectReport): Promise<void> {
    const { object, isAccepted, message } = report
    const condition = {
      type: 'Accepted',
      status: statusOf(isAccepted),
      reason: isAccepted ? 'Accepted' : 'Refused',
      message,
      observedGeneration: object.generation,
      lastTransitionTime: this.#https.now(),
    }
    const { status } = await this.#https.ask(`${pathOf(object)}/status`, {
      method: 'PATCH',
      contentType: 'application/merge-patch+json',
      body: { status: { conditions: [condition] } },
    })
    this.#isForbidden = status === FORBIDDEN
    if (this.#written.size >= 10_000) this.#written.clear()
    this.#written.set(object.uid, textOf(report))
  }
}

function statusOf(isAccepted: boolean): string {
  return isAccepted ? 'True' : 'False'
}

function textOf({ object, isAccepted, message }: ObjectReport): string {
  return JSON.stringify([object.generation, isAccepted, message])
}

function pathOf({ kind, namespace, name }: ClusterObject): string {
  const space = namespace === '' ? '' : `/namespaces/${namespace}`
  return `/apis/${API_VERSION}${space}/${PLURALS[kind]}/${name}`
}
