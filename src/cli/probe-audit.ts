/** The audits that a probe reads: files, and agents that tell of their decisions at their admin sockets. */
import { existsSync, statSync } from 'node:fs'
import { Fault } from '../base/fault.ts'
import { openAgentLines } from '../client/http.ts'
import { followFile } from '../probe/audit-file.ts'
import { type AuditTail, type Members, Records } from '../probe/records.ts'
import type { Io } from './io.ts'

const AUDITS_LIMIT = 16
const NAMED = /^(?:([A-Za-z][A-Za-z0-9_.-]{0,31})=)?([^#]+)(?:#([^#]{1,256}))?$/
const WAITING_LIMIT = 4096

/**
 * From now on until `signal` aborts: `[NAME=]PATH[#ROUTE]` each, of an audit file or an admin
 * socket, and only what is about that route. Undefined when there are
 * none; throws usage, agent_unreachable, admin_denied.
 */
export async function openAudits(
  audits: readonly string[] | undefined,
  io: Io,
  signal: AbortSignal,
): Promise<Records | undefined> {
  if (audits === undefined || audits.length === 0) return undefined
  if (audits.length > AUDITS_LIMIT) throw new Fault('usage', `over ${AUDITS_LIMIT} audits`)
  const tails = await Promise.all(audits.map((text) => openTail(text, signal)))
  if (new Set(tails.map(({ name }) => name)).size < tails.length)
    throw new Fault('usage', 'an audit is named twice')
  return new Records(tails, (ms) => io.sleep(ms))
}

async function openTail(text: string, signal: AbortSignal): Promise<AuditTail> {
  const [, named, path = text, route] = existsSync(text) ? [] : (NAMED.exec(text) ?? [])
  const name = named ?? route ?? path
  const isSocket = existsSync(path) && statSync(path).isSocket()
  const tail = isSocket ? await followSocket(name, path, signal) : followFile(name, path)
  if (route === undefined) return tail
  return { name, pull: () => tail.pull().filter((record) => record['route'] === route) }
}

/** Once it resolves, no decision is missed. */
async function followSocket(name: string, path: string, signal: AbortSignal): Promise<AuditTail> {
  const lines = await openAgentLines(path, '/v1/decisions', signal)
  const waiting: Members[] = []
  let end: unknown
  const read = async () => {
    for await (const line of lines) if (waiting.push(line) > WAITING_LIMIT) waiting.shift()
    end ??= new Fault('agent_unreachable', `the agent at ${path} ended while its decisions were watched`)
  }
  read().catch((error: unknown) => {
    end = error
  })
  const pull = () => {
    if (waiting.length === 0 && end !== undefined && !signal.aborted) throw end
    return waiting.splice(0)
  }
  return { name, pull }
}
