/** Carries a request out, and what its redirects ask for: each a new request, with its own permit, token and record. */
import { Fault, type Reason } from '../base/fault.ts'
import { Body } from './body.ts'
import { carryOut, type Exchange, type Redirected } from './exchange.ts'
import { hasBody } from './headers.ts'
import { type Draft, permit } from './permit.ts'
import type { ProxyOptions } from './proxy.ts'
import { type Ending, Record } from './record.ts'
import { headFor, REDIRECTS_LIMIT, type Redirect, refused, targetsAt } from './redirect.ts'
import type { Route } from './route.ts'

/** The request under way: what is noted of the last one, once it has ended, is the caller's to put on record. */
export interface Hop {
  draft: Draft
  record: Record
}

/** How `first` ended, redirects followed. Throws as carryOut and permit do, and redirect_refused. */
export async function follow(
  options: ProxyOptions,
  hop: Hop,
  route: Route,
  first: Exchange,
): Promise<Ending> {
  const { limits } = options
  const { line, request } = first
  const buffer = { limit: limits.bufferBytes, onBytes: line.touch }
  let body = hasBody(first.raw) ? new Body(request, buffer) : undefined
  let exchange = first
  const seen = new Set<string>()
  for (;;) {
    const ending = await carryOut(options, exchange, body)
    if (!('redirect' in ending)) return ending
    const { redirect } = ending
    seen.add(keyOf(exchange.permit.method, exchange.permit.url.htu + exchange.query))
    checkTrail(redirect, seen)
    if (!redirect.keepsBody) body = undefined
    if (body && !body.isReplayable)
      throw new Fault('body_not_replayable', 'the target redirects, and the body was too long to be kept')
    exchange = await next(options, hop, route, exchange, ending)
  }
}

function keyOf(method: string, place: string): string {
  return `${method} ${place}`
}

function checkTrail({ method, query, url }: Redirect, seen: ReadonlySet<string>): void {
  if (seen.has(keyOf(method, url.htu + query))) throw refused('where the request has been before')
  if (seen.size > REDIRECTS_LIMIT) throw refused(`a place after more than ${REDIRECTS_LIMIT} others`)
}

const NOT_GRANTED: ReadonlySet<Reason> = new Set(['policy_denied', 'target_unknown', 'url_refused'])

/** The permit of the redirect: of the first target at that place that policy grants. */
async function next(
  options: ProxyOptions,
  hop: Hop,
  route: Route,
  from: Exchange,
  { redirect, status }: Redirected,
): Promise<Exchange> {
  const { line, permit: before } = from
  const names = targetsAt(options.book.get(), redirect, before.target.name)
  let ending: Ending = { status }
  for (const target of names) {
    hop.record.ended(ending)
    hop.draft = { method: redirect.method }
    hop.record = new Record(options, hop.draft)
    try {
      const to = { ...route, target, path: redirect.url.path, query: redirect.query }
      const permitted = await permit(options, before.workload, to, hop.draft, line)
      const raw = headFor(from.raw, redirect, before.url)
      return { ...from, permit: permitted, query: redirect.query, record: hop.record, raw }
    } catch (caught) {
      const fault = Fault.from(caught)
      if (!NOT_GRANTED.has(fault.reason)) throw fault
      ending = { fault: refused(`${target}, where the request may not go: ${fault.message}`) }
    }
  }
  throw ending.fault ?? refused(redirect.url.origin)
}
