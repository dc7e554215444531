/** The composition root: in which order an agent's parts start and end, and what it answers meanwhile. */
import type { Clock, Millis } from './base/clock.ts'
import { Fault } from './base/fault.ts'
import { type Core, type CoreOptions, openCore } from './core.ts'
import { type Doors, openDoors } from './doors.ts'
import { clientJwks, JWKS_MAX_AGE } from './egress/client-key.ts'
import { endpointUrl, openBundleEndpoint } from './issue/bundle-endpoint.ts'
import type { AdminApiOptions } from './operate/admin-api.ts'
import { openOps } from './operate/ops.ts'
import { type AgentStatus, bundleStatus, identityStatuses, targetStatuses } from './operate/status.ts'
import type { RuleBook } from './policy/book.ts'
import { type Directories, prepareDirectories } from './serve/directories.ts'
import type { PublicServer } from './serve/public-server.ts'

export interface DaemonOptions extends Omit<CoreOptions, 'revocationsFile'> {
  readonly dir: string
  readonly version: string
  /** Reads policy again; throws policy_invalid. */
  readonly loadBook: () => Promise<RuleBook>
  readonly takeover: boolean
  /** Descriptors of sockets that systemd listens on: `workload`, `admin`. */
  readonly listening: ReadonlyMap<string, number>
  /** Called when a drain that an operator asked for is over. */
  readonly onDrained: () => void
}

/** A running agent. */
export interface Daemon {
  readonly directories: Directories
  readonly opsPort: number | undefined
  readonly endpointPort: number | undefined
  /** Of the verifier over TCP. */
  readonly verifierPort: number | undefined
  status(): AgentStatus
  /** Loads policy again; on failure the last good policy stays, the agent is degraded, and the Fault is thrown. */
  reload(): Promise<void>
  /** Refuses new calls, lets those under way end and gives tokens back within `grace`, then destroys every key. */
  stop(grace: Millis): Promise<void>
}

/** Why no call is taken; `passive` while a newcomer has the socket. */
type Phase = 'starting' | 'ready' | 'draining' | 'passive'

const DRAIN_GRACE: Millis = 2_000
/** Tokens end soon by themselves: a server that hangs must not keep the agent. */
const GIVE_BACK_LIMIT: Millis = 3_000
const ANSWER_FIRST: Millis = 50
const LOOK_EVERY: Millis = 20
/**
 * A newcomer has the path: whoever connected before is still served, from the queue of the socket too, until no call has
 * begun for so long. Clients that keep a connection busy are sent away after the limit.
 */
const QUIET: Millis = 500
const LINGER_LIMIT: Millis = 5_000

/** Starts an agent; its sockets answer UNAVAILABLE until it is ready. Throws what keeps it from starting. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { config, health } = options
  health.begin('start')
  const directories = prepareDirectories(options.dir)
  const core = openCore({ ...options, revocationsFile: config.revocations.file ?? directories.revocations })
  const agent = new Agent(options, directories, core)
  try {
    await agent.start()
  } catch (error) {
    agent.end()
    throw error
  }
  health.done('start')
  return agent
}

class Agent implements Daemon {
  readonly directories: Directories
  readonly #options: DaemonOptions
  readonly #core: Core
  #doors: Doors | undefined
  #ops: Awaited<ReturnType<typeof openOps>> | undefined
  #endpoint: PublicServer | undefined
  #phase: Phase = 'starting'
  #reloading: Promise<void> = Promise.resolve()
  #isLeaving = false
  /** When a call last began. */
  #called: Millis = 0

  constructor(options: DaemonOptions, directories: Directories, core: Core) {
    this.#options = options
    this.directories = directories
    this.#core = core
  }

  get opsPort(): number | undefined {
    return this.#ops?.port
  }

  get verifierPort(): number | undefined {
    return this.#doors?.verifierPort
  }

  get endpointPort(): number | undefined {
    return this.#endpoint?.port
  }

  async start(): Promise<void> {
    const doors = await openDoors(
      {
        ...this.#options,
        revocationsFile: '',
        directories: this.directories,
        admit: () => this.#admit(),
        admin: {
          status: () => this.status(),
          reload: () => this.reload(),
          drain: () => this.#drain(),
          registration: this.#registration(),
        },
        onTaken: () => void this.#becomePassive(),
        onBack: () => this.#becomeReady(),
      },
      this.#core,
    )
    this.#doors = doors
    await this.#openPorts()
    this.#becomeReady()
    doors.publish()
    const { hash } = this.#core.book.get()
    this.#options.audit.append({
      event: 'agent.start',
      allowed: true,
      policy: hash,
      detail: this.#options.version,
    })
    doors.addStandardServices()
  }

  status(): AgentStatus {
    const { config, version, health, authority } = this.#options
    const { book, svids, vault, revocations } = this.#core
    return {
      version,
      pid: process.pid,
      trust_domain: config.trustDomain,
      state: this.#phase,
      pending: health.pending,
      degraded: health.degraded,
      policy: book.get().hash,
      epoch: vault.epoch,
      connections: this.#doors?.connections() ?? 0,
      keys: vault.count,
      bundle: bundleStatus(authority.bundle.get()),
      identities: identityStatuses(book.get(), svids, vault),
      targets: targetStatuses(book.get()),
      revocations: revocations.list(),
    }
  }

  /** One at a time: what was read first must not be applied last. */
  reload(): Promise<void> {
    const turn = this.#reloading.then(() => this.#reload())
    this.#reloading = turn.catch(() => {})
    return turn
  }

  async #reload(): Promise<void> {
    const { audit, health, log, metrics } = this.#options
    try {
      const book = await this.#options.loadBook()
      this.#endpoint?.reload()
      if (book.hash !== this.#core.book.get().hash) this.#core.book.set(book)
      health.recover('reload_failed')
      audit.append({ event: 'policy.load', allowed: true, policy: book.hash })
      metrics.count('holdfast_reloads_total', { reason: 'ok' })
      log.info('policy loaded', { count: book.entries.length })
    } catch (caught) {
      const fault = Fault.from(caught)
      health.degrade({ code: 'reload_failed', message: fault.message, action: fault.action })
      audit.append({ event: 'policy.load', allowed: false, reason: fault.reason })
      metrics.count('holdfast_reloads_total', { reason: fault.reason })
      log.error(`the last good policy stays: ${fault.message}`, {
        reason: fault.reason,
        action: fault.action,
      })
      throw fault
    }
  }

  async stop(grace: Millis): Promise<void> {
    if (this.#isLeaving) return
    this.#isLeaving = true
    const { clock } = this.#options
    const end = clock.monotonic() + grace
    if (this.#phase === 'ready' && this.#doors?.isTaken()) await this.#linger(grace / 2)
    const rest = end - clock.monotonic()
    this.#phase = 'draining'
    this.#doors?.leave(rest, false)
    this.#endStreams()
    const given = grace > 0 ? this.#doors?.giveBack(Math.min(rest, GIVE_BACK_LIMIT)) : undefined
    await settled(clock, rest, () => this.#doors?.connections() === 0)
    await given
    this.end()
  }

  /** Everything goes at once; safe to call for an agent that never started whole. */
  end(): void {
    this.#phase = 'draining'
    this.#doors?.stop()
    this.#ops?.stop()
    this.#endpoint?.stop()
    this.#core.stop()
    this.#options.audit.append({ event: 'agent.stop', allowed: true })
    this.#options.audit.close()
  }

  #registration(): AdminApiOptions['registration'] {
    const { authority, bundleEndpoint } = this.#options.config
    const endpoint = () => endpointUrl({ ...bundleEndpoint, port: this.endpointPort })
    return { keys: this.#core.clientKeys, caFile: authority.ca.certificateFile, endpoint }
  }

  /** The operator is answered first: the end closes the admin socket too. */
  #drain(): void {
    this.#options.clock.after(ANSWER_FIRST, () => void this.stop(DRAIN_GRACE).then(this.#options.onDrained))
  }

  #becomeReady(): void {
    this.#phase = 'ready'
    this.#core.rotator.resume()
  }

  async #becomePassive(): Promise<void> {
    await this.#linger(LINGER_LIMIT)
    if (this.#phase !== 'ready' || !this.#doors?.isTaken()) return
    this.#phase = 'passive'
    this.#options.log.warn('another agent took the socket over; this one serves nobody until SIGTERM')
    this.#core.rotator.pause()
    this.#doors?.leave(DRAIN_GRACE, true)
    this.#endStreams()
  }

  #linger(limit: Millis): Promise<void> {
    const { clock } = this.#options
    this.#called = clock.monotonic()
    return settled(clock, Math.min(limit, LINGER_LIMIT), () => clock.monotonic() - this.#called >= QUIET)
  }

  #admit(): void {
    this.#called = this.#options.clock.monotonic()
    refuse(this.#phase)
  }

  /** With UNAVAILABLE: a session closed under its streams reads as CANCELLED, which SPIFFE clients never retry. */
  #endStreams(): void {
    this.#core.attestation.revoke({}, new Fault('draining'))
  }

  async #openPorts(): Promise<void> {
    const { config, health, metrics, authority } = this.#options
    const { book, clientKeys } = this.#core
    const { listen } = config.ops
    const serving = () => this.#phase === 'ready'
    const isReady = () => health.ready && serving()
    metrics.gauge('holdfast_ready', 'Whether /readyz says so: 1 or 0.', () => (isReady() ? 1 : 0))
    metrics.gauge('holdfast_degraded', 'Degradations that /readyz names.', () => health.degraded.length)
    if (listen) this.#ops = await openOps({ ...listen, health, metrics, serving })
    const { listen: address, ...files } = config.bundleEndpoint
    const clients = { jwks: (name: string) => clientJwks(clientKeys, book.get(), name), maxAge: JWKS_MAX_AGE }
    const { bundle } = authority
    if (address) this.#endpoint = await openBundleEndpoint({ ...address, ...files, bundle, clients })
  }
}

function refuse(phase: Phase): void {
  if (phase === 'starting') throw new Fault('not_ready')
  if (phase !== 'ready') throw new Fault('draining')
}

/** Resolves when `isDone`, or after `limit`. */
function settled(clock: Clock, limit: Millis, isDone: () => boolean): Promise<void> {
  const end = clock.monotonic() + limit
  return new Promise((resolve) => {
    const look = () => {
      if (isDone() || clock.monotonic() >= end) resolve()
      else clock.after(LOOK_EVERY, look)
    }
    look()
  })
}
