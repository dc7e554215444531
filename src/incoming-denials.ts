/** What the verifier hears of revocations: operators, a denylist in a file or at a URL, security events. */
import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { Fault } from './base/fault.ts'
import { watchFiles } from './base/watch.ts'
import type { Core } from './core.ts'
import type { AskOf, IncomingOptions } from './incoming.ts'
import { Denylist } from './ingress/denylist.ts'
import { openDenylistFile } from './ingress/denylist-file.ts'
import { LIST_ITEMS } from './ingress/denylist-text.ts'
import { DenylistUrl } from './ingress/denylist-url.ts'
import { EventPoll } from './ingress/event-poll.ts'
import { openEventPush } from './ingress/event-push.ts'
import { SetRefusal } from './ingress/event-token.ts'
import { type EventNote, SecurityEvents } from './ingress/events.ts'
import { KeySets } from './ingress/key-sets.ts'
import type { Transmitter } from './policy/transmitter.ts'

export interface DenialParts {
  readonly denylist: Denylist
  stop(): void
}

const MILLIS = 1000
/** The least time that a revoked credential is remembered. */
const LIFE_LEAST = 3600

/**
 * Throws config_invalid, policy_writable when a denylist in a file, or what events have revoked, cannot be had: the
 * verifier does not begin without it. A list at a URL keeps the agent from being ready until it is there.
 */
export async function openDenials(options: IncomingOptions, core: Core, ask: AskOf): Promise<DenialParts> {
  const { clock, config, health, metrics } = options
  const { book, revocations } = core
  const { every, file, url } = config.verifier.denylist
  const denylist = new Denylist({ clock, revocations, limit: LIST_ITEMS })
  metrics.gauge('holdfast_denials', 'Rules of denylists in force.', () => denylist.count)
  const stale = stateOf(options, 'denylist_stale')
  const stops: (() => void)[] = []
  const stop = () => {
    for (const each of stops.splice(0)) each()
  }
  try {
    if (file !== undefined) {
      const list = await openDenylistFile({ clock, file, denylist, onState: stale })
      stops.push(() => list.stop())
    }
    if (url !== undefined) {
      health.begin('denylist')
      const list = new DenylistUrl({
        clock,
        url,
        every: every * MILLIS,
        ask: ask(url),
        denylist,
        onState: stale,
      })
      list.first.then(
        () => health.done('denylist'),
        () => {},
      )
      stops.push(() => list.stop())
    }
    const ending = new AbortController()
    stops.push(() => ending.abort(new Fault('draining')))
    const events = openEvents(options, core, denylist, { ask, signal: ending.signal })
    stops.push(pollAll(options, core, events, ask))
    const push = await openPush(options, () => book.get().transmitters, events)
    if (push) stops.push(push)
  } catch (error) {
    stop()
    throw error
  }
  return { denylist, stop }
}

function openEvents(
  options: IncomingOptions,
  core: Core,
  denylist: Denylist,
  { ask, signal }: { readonly ask: AskOf; readonly signal: AbortSignal },
): SecurityEvents {
  const { clock, config, directories } = options
  const { book } = core
  const transmitters = () => book.get().transmitters
  const fetch = async ({ issuer }: { readonly issuer: string }) => {
    const transmitter = transmitters().find((each) => each.issuer === issuer)
    if (!transmitter) throw new Fault('issuer_unavailable', 'policy has no such transmitter any more')
    const request = { method: 'GET', headers: { accept: 'application/json' } } as const
    const { body, status } = await ask(issuer)(transmitter.jwksUri, request, signal)
    if (status !== 200)
      throw new Fault('issuer_unavailable', `${issuer} answers for its keys with status ${status}`)
    return body
  }
  const { skew } = config.verifier
  return new SecurityEvents({
    clock,
    denylist,
    transmitters,
    keys: new KeySets({ clock, fetch }),
    skew,
    life: () => {
      const lives = [...book.get().routes.all.values()].map(({ identity }) => identity?.maxTtl ?? 0)
      return Math.max(LIFE_LEAST, ...lives) + 2 * skew
    },
    file: join(dirname(directories.revocations), 'events.json'),
    onEvent: (note) => noteEvent(options, note),
  })
}

/** One poll for each transmitter that has one, begun anew when policy changes that. */
function pollAll(options: IncomingOptions, { book }: Core, events: SecurityEvents, ask: AskOf): () => void {
  const { clock, config } = options
  const polls = new Map<string, EventPoll>()
  const follow = () => {
    const wanted = book.get().transmitters.filter(({ poll }) => poll !== undefined)
    for (const [issuer, poll] of polls) {
      if (wanted.some((each) => each.issuer === issuer)) continue
      poll.stop()
      polls.delete(issuer)
    }
    for (const { issuer } of wanted) {
      if (polls.has(issuer)) continue
      const poll = new EventPoll({
        clock,
        transmitter: () => book.get().transmitters.find((each) => each.issuer === issuer),
        every: config.events.every * MILLIS,
        ask: ask(issuer),
        events,
        onRefused: (from, why) => noteRefusal(options, from, why),
        onState: stateOf(options, 'events_unavailable'),
      })
      polls.set(issuer, poll)
    }
  }
  follow()
  const unwatch = book.watch(follow)
  return () => {
    unwatch()
    for (const poll of polls.values()) poll.stop()
  }
}

async function openPush(
  options: IncomingOptions,
  transmitters: () => readonly Transmitter[],
  events: SecurityEvents,
): Promise<(() => void) | undefined> {
  const { clock, config, log } = options
  const { certificateFile, keyFile, listen } = config.events
  if (!listen || certificateFile === undefined || keyFile === undefined) return undefined
  const files = { certificateFile, keyFile }
  const onRefused = (issuer: string | undefined, why: SetRefusal | Fault) => noteRefusal(options, issuer, why)
  const push = await openEventPush({ ...listen, ...files, transmitters, events, onRefused })
  const watch = watchFiles([certificateFile, keyFile], clock, () => {
    try {
      push.reload()
    } catch (error) {
      log.warn(`the last good certificate of events.listen stays: ${Fault.from(error).message}`)
    }
  })
  return () => {
    watch.close()
    push.stop()
  }
}

function stateOf({ health }: IncomingOptions, code: string): (fault: Fault | undefined) => void {
  return (fault) => {
    if (fault) health.degrade({ code, message: fault.message, action: fault.action })
    else health.recover(code)
  }
}

function noteEvent({ audit, metrics }: IncomingOptions, { subject, transmitter, what }: EventNote): void {
  metrics.count('holdfast_events_total', { reason: 'ok' })
  const { spiffe_id } = subject as { spiffe_id?: string }
  const hidden = createHash('sha256').update(JSON.stringify(subject)).digest('base64url').slice(0, 16)
  const named = spiffe_id === undefined ? { subject: hidden } : { spiffe_id }
  audit.append({ event: 'event', allowed: true, ...named, caller: transmitter, detail: what })
}

function noteRefusal(
  { audit, metrics }: IncomingOptions,
  caller: string | undefined,
  why: SetRefusal | Fault,
): void {
  const [reason, detail] =
    why instanceof SetRefusal
      ? (['event_refused', `${why.code}: ${why.message}`] as const)
      : ([why.reason] as const)
  metrics.count('holdfast_events_total', { reason })
  audit.append({ event: 'event', allowed: false, reason, caller, detail })
}
