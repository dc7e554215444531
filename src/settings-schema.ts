/** The table of settings as a zod schema: what parses a configuration file and what editors complete from. */
import * as z from 'zod'
import { Fault } from './base/fault.ts'
import { duration, parsedBy } from './base/forms.ts'
import { parseRedisUrl } from './ingress/redis-place.ts'
import { SETTINGS } from './settings.ts'
import { type Branch, type Form, isSetting, LAYERS, type Listen, type Setting } from './settings-forms.ts'
import { parseTrustDomain } from './spiffe/id.ts'

const LIST_LIMIT = 256

/** JSON Schema (2020-12) of the file, with the same names, sentences and defaults. */
export function configJsonSchema(): Record<string, unknown> {
  return {
    $id: 'https://holdfast.dev/config.schema.json',
    title: 'Holdfast configuration',
    ...z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }),
  }
}

function schemaOf(branch: Branch): z.ZodType {
  const shape: Record<string, z.ZodType> = {}
  for (const [name, node] of Object.entries(branch)) {
    shape[name] = isSetting(node) ? settingSchema(node) : schemaOf(node).optional()
  }
  return z.strictObject(shape)
}

function settingSchema(setting: Setting<unknown>): z.ZodType {
  const says = setting.written === '' ? setting.says : `${setting.says} Default: ${setting.written}.`
  const schema = formSchema(setting.form)
  return (setting.required ? schema : schema.optional()).describe(says)
}

function formSchema(form: Form): z.ZodType {
  switch (form.kind) {
    case 'text':
    case 'path':
      return z.string().min(1).max(4096)
    case 'paths':
    case 'texts':
      return z.array(z.string().min(1).max(4096)).max(LIST_LIMIT)
    case 'trust_domain':
      return z.string().transform(parsedBy(parseTrustDomain))
    case 'url':
      return z.string().max(2048).transform(parsedBy(parseIssuer))
    case 'hook':
      return z.string().max(2048).transform(parsedBy(parseHook))
    case 'redis':
      return z.string().max(2048).transform(parsedBy(parseRedisUrl))
    case 'flag':
      return z.boolean()
    case 'choice':
      return z.enum(form.of as readonly [string, ...string[]])
    case 'count':
      return z.int().min(form.min).max(form.max)
    case 'duration':
      return duration(form.min, form.max)
    case 'listen':
      return z.string().max(300).transform(parsedBy(parseListen))
    case 'owners':
      return owners
  }
}

const owner = z.strictObject({
  team: z.string().min(1).max(128).describe('The team that owns the layer.'),
  contact: z.string().min(1).max(256).describe('How to reach it.'),
})

const owners = z.strictObject(Object.fromEntries(LAYERS.map((layer) => [layer, owner.optional()])))

const LISTEN = /^(?:\[([0-9A-Fa-f:]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})$/

/** `host:port`, `[v6]:port`, or `off`. */
function parseListen(text: string): Listen | undefined {
  if (text === 'off') return undefined
  const match = LISTEN.exec(text)
  const port = Number(match?.[3])
  if (!match || port > 65_535) throw new Fault('config_invalid', 'not an address: wanted host:port or off')
  return { host: match[1] ?? match[2] ?? '', port }
}

/** OpenID Connect Discovery s.3: https, no query or fragment. */
function parseIssuer(text: string): string {
  if (!/^https:\/\/[^?#\s]+$/.test(text) || !URL.canParse(text)) {
    throw new Fault('config_invalid', 'not an issuer: wanted an https URL without query or fragment')
  }
  return text
}

const LOOPBACK: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]'])

/** https, or http on loopback, without user, query or fragment: nothing secret may stand in a setting. */
function parseHook(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isKnown = url?.protocol === 'https:' || (url?.protocol === 'http:' && LOOPBACK.has(url.hostname))
  if (!url || !isKnown || url.username !== '' || url.password !== '' || /[?#\s]/.test(text)) {
    throw new Fault(
      'config_invalid',
      'not the URL of a hook: wanted https, or http on loopback, without user, query or fragment',
    )
  }
  return url.href
}

/** A whole configuration file. */
export const configSchema = schemaOf(SETTINGS as unknown as Branch)
