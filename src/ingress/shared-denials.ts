/**
 * Denials that agents on one Redis server tell each other: a set of rules that ends by itself, a version that says
 * when to read it again, and a channel that says so at once. What was heard stays in force until its end or until it
 * is lifted, whatever becomes of the server; what was lost there is said again by whoever said it.
 */
import { randomBytes } from 'node:crypto'
import { type Clock, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { type DenyRule, formatDenyRule, parseDenyRule, ruleId } from './deny-rule.ts'
import type { Denylist } from './denylist.ts'
import { faultOf } from './redis.ts'
import { runScript, scriptOf } from './redis-script.ts'
import type { Reply } from './resp.ts'

export interface SharedDenialsOptions {
  readonly clock: Clock
  readonly prefix: string
  readonly denylist: Denylist
  /** Rules and lifts that are kept for all agents together. */
  readonly limit: number
  /** Why others do not hear of what is revoked here; undefined when they do. */
  readonly onState: (fault: Fault | undefined) => void
}

type Call = (parts: readonly (string | number)[]) => Promise<Reply>

/** ARGV: now, limit, channel, a new version or nothing (more follows), how many members go, these, then end and member of each that comes. */
const CHANGE = scriptOf(`redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
local first = 6 + tonumber(ARGV[5])
for at = 6, first - 1 do redis.call('ZREM', KEYS[1], ARGV[at]) end
local full = 0
for at = first, #ARGV, 2 do
  if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[2]) then redis.call('ZADD', KEYS[1], ARGV[at], ARGV[at + 1])
  else full = 1 end
end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[2], ARGV[4])
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return full`)

const BATCH = 500
const MEMBER = { maxBytes: 8192, maxDepth: 2 }

interface Read {
  readonly rules: ReadonlyMap<string, DenyRule>
  /** The ends of lifts, by the id of what was lifted. */
  readonly lifts: ReadonlyMap<string, number>
}

const NOTHING: Read = { rules: new Map(), lifts: new Map() }

export class SharedDenials {
  readonly #options: SharedDenialsOptions
  #version: Reply
  #read = NOTHING
  /** What this agent has said, so that it can take it back. */
  #said: ReadonlyMap<string, DenyRule> = new Map()
  #turn: Promise<void> = Promise.resolve()

  constructor(options: SharedDenialsOptions) {
    this.#options = options
  }

  get channel(): string {
    return `${this.#options.prefix}:denied`
  }

  /** Hears what is new and says what is; one after the other. Throws replay_unavailable. */
  look(call: Call): Promise<void> {
    const next = this.#turn.then(() => this.#look(call))
    this.#turn = next.catch(() => {})
    return next
  }

  async #look(call: Call): Promise<void> {
    try {
      await this.#hear(call)
      await this.#say(call)
    } catch (error) {
      throw faultOf(error)
    }
  }

  async #hear(call: Call): Promise<void> {
    const { clock, denylist, limit } = this.#options
    const version = await call(['GET', this.#versionKey])
    if (version !== undefined && version === this.#version) return
    const reply = await call(['ZRANGEBYSCORE', this.#key, `(${nowSeconds(clock)}`, '+inf', 'LIMIT', 0, limit])
    this.#read = readMembers(Array.isArray(reply) ? reply : [])
    const { lifts, rules } = this.#read
    const next = new Map([...denylist.of('shared'), ...rules])
    // What this agent says itself ends here with its own word, whether or not the server is there to hear it.
    for (const id of [...lifts.keys(), ...denylist.own().keys()]) next.delete(id)
    denylist.replace('shared', [...next.values()].slice(-limit))
    this.#version = version
  }

  async #say(call: Call): Promise<void> {
    const { clock, denylist, limit, onState } = this.#options
    const own = denylist.own()
    const now = nowSeconds(clock)
    const [gone, come]: [string[], (readonly [number, string])[]] = [[], []]
    for (const [id, rule] of own) {
      const lift = this.#read.lifts.get(id)
      if (lift !== undefined) gone.push(liftOf(id, lift))
      if (lift !== undefined || !this.#read.rules.has(id)) come.push([rule.until, formatDenyRule(rule)])
    }
    for (const [id, rule] of this.#said) {
      if (own.has(id) || rule.until <= now) continue
      gone.push(formatDenyRule(rule))
      come.push([rule.until, liftOf(id, rule.until)])
    }
    let isFull = false
    const length = Math.max(gone.length, come.length)
    for (let at = 0; at < length; at += BATCH) {
      const [leaving, coming] = [gone.slice(at, at + BATCH), come.slice(at, at + BATCH)]
      const version = at + BATCH < length ? '' : randomBytes(12).toString('base64url')
      const args = [now, limit, this.channel, version, leaving.length, ...leaving, ...coming.flat()]
      isFull = (await runScript(call, CHANGE, [this.#key, this.#versionKey], args)) === 1 || isFull
    }
    this.#said = own
    // Full is told as long as it lasts; what did not get in is said again with the next look.
    onState(
      isFull ? new Fault('overloaded', `over ${limit} denials are shared; shorten the denylists`) : undefined,
    )
    if (come.length > 0 || gone.length > 0) await this.#hear(call)
  }

  get #key(): string {
    return `${this.#options.prefix}:denials`
  }

  get #versionKey(): string {
    return `${this.#options.prefix}:denials:version`
  }
}

function liftOf(id: string, until: number): string {
  return JSON.stringify({ lift: id, until })
}

/** What is not understood is left out: it may be of a newer agent. */
function readMembers(members: readonly Reply[]): Read {
  const rules = new Map<string, DenyRule>()
  const lifts = new Map<string, number>()
  for (const member of members) {
    if (typeof member !== 'string') continue
    try {
      const { lift, ...rest } = parseJsonObject(member, MEMBER)
      if (typeof lift === 'string') lifts.set(lift, Number(rest['until']))
      else {
        const rule = parseDenyRule(rest)
        rules.set(ruleId(rule), rule)
      }
    } catch (error) {
      if (!(error instanceof Fault)) throw error
    }
  }
  for (const id of lifts.keys()) rules.delete(id)
  return { rules, lifts }
}
