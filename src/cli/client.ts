/** `holdfast client register-info`: what to enter at an authorization server for the agent's client there. */
import { printable } from '../base/fault.ts'
import type { ClientMetadata, ClientRegistration } from '../operate/client-registration.ts'
import { askAsOperator, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json, table, tinted } from './render.ts'

/** Asks the running agent: what counts is its policy and configuration, not that of files. */
export async function registerInfo(server: string, options: Where & Shown, io: Io): Promise<ExitCode> {
  const call = { method: 'POST', path: '/v1/client-registration', body: { server } } as const
  const found = await askAsOperator<ClientRegistration>(options, io, call)
  io.out(options.output === 'json' ? json(found) : registrationText(found, io.isColored))
  return EXIT.ok
}

export function registrationText(found: ClientRegistration, isColored: boolean): string {
  const head = `Enter this at ${printable(found.issuer)} (server ${printable(found.server)} in policy).\n`
  const parts = [
    head,
    ...found.clients.map((client) => table(['metadata', 'value'], rowsOf(client), isColored)),
    targetsText(found, isColored),
    found.notes.map((note) => `${tinted('note', 'dim', isColored)} ${printable(note)}\n`).join(''),
  ]
  return parts.filter((part) => part !== '').join('\n')
}

function rowsOf(client: ClientMetadata): readonly (readonly string[])[] {
  return Object.entries(client).flatMap(([name, value]) => {
    if (Array.isArray(value)) return value.length > 0 ? [[name, value.join(' ')]] : []
    return [[name, typeof value === 'object' ? JSON.stringify(value) : String(value)]]
  })
}

function targetsText({ targets }: ClientRegistration, isColored: boolean): string {
  if (targets.length === 0) return ''
  const rows = targets.map(({ name, resource, scopes, binding }) => [
    name,
    resource ?? '-',
    scopes.join(' ') || '-',
    binding.join(' '),
  ])
  return table(['target', 'resource', 'scopes', 'binding'], rows, isColored)
}
