/** `holdfast init`: a configuration and one policy file a layer to begin with; nothing that exists is touched. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { Fault } from '../base/fault.ts'
import { configSchemaJson, DEV_TRUST_DOMAIN } from '../config.ts'
import { devPolicy } from '../policy/dev.ts'
import { parseTrustDomain } from '../spiffe/id.ts'
import type { Shown } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { json } from './render.ts'

export interface InitOptions extends Shown {
  readonly dir?: string
  readonly trustDomain?: string
}

const DEFAULT_DIR = 'holdfast'
const CONFIG = 'holdfast.yaml'
const CONFIG_SCHEMA = 'holdfast.schema.json'
const POLICY_SCHEMA = 'policy.schema.json'

/** Writes the files; throws usage when one is there already. */
export async function init(options: InitOptions, io: Io): Promise<ExitCode> {
  const dir = resolve(options.dir ?? DEFAULT_DIR)
  const trustDomain = parseTrustDomain(options.trustDomain ?? DEV_TRUST_DOMAIN)
  const uids = userIds(io.environment.sudoUid)
  const policy = devPolicy({ trustDomain, uids }).map(({ file, text }) => ({
    path: join(dir, 'policy', file),
    text: schemaLine(`../${POLICY_SCHEMA}`) + text,
  }))
  const config = { path: join(dir, CONFIG), text: schemaLine(CONFIG_SCHEMA) + configText(trustDomain) }
  const files = [config, ...policy, ...(await schemas(dir))]
  writeAll(dir, files)
  const paths = files.map(({ path }) => path)
  io.out(options.output === 'json' ? json({ files: paths }) : nextText(dir, paths))
  return EXIT.ok
}

/** This user, and under sudo the one who called it. */
function userIds(sudoUid: string | undefined): readonly number[] {
  const own = process.geteuid?.() ?? 0
  const caller = /^\d{1,10}$/.test(sudoUid ?? '') ? [Number(sudoUid)] : []
  return [...new Set([own, ...caller])]
}

interface NewFile {
  readonly path: string
  readonly text: string
}

function writeAll(dir: string, files: readonly NewFile[]): void {
  const taken = files.find(({ path }) => existsSync(path))
  if (taken) {
    throw new Fault('usage', `${taken.path} exists`, {
      action: 'Choose another --dir, or move the file away.',
    })
  }
  try {
    // Others must not be able to change what the agent trusts.
    mkdirSync(join(dir, 'policy'), { recursive: true, mode: 0o755 })
    for (const { path, text } of files) writeFileSync(path, text, { mode: 0o644, flag: 'wx' })
  } catch (error) {
    throw new Fault('usage', `${dir} cannot be written`, {
      action: 'Choose a --dir that this user may write.',
      cause: error,
    })
  }
}

/** Editors complete and check against these as one types. */
async function schemas(dir: string): Promise<readonly NewFile[]> {
  const { policyJsonSchema } = await import('../policy/schema.ts')
  return [
    { path: join(dir, CONFIG_SCHEMA), text: json(await configSchemaJson()) },
    { path: join(dir, POLICY_SCHEMA), text: json(policyJsonSchema()) },
  ]
}

function schemaLine(path: string): string {
  return `# yaml-language-server: $schema=${path}\n`
}

function configText(trustDomain: string): string {
  return `# The configuration of one agent. The README lists every setting with its default.
trust_domain: ${trustDomain}
policy:
  files: [policy]
`
}

/** As it would be typed here: a way up the tree is harder to read than the whole path. */
function shortest(path: string): string {
  const name = relative('.', path)
  return name.startsWith('..') ? path : name
}

function nextText(dir: string, paths: readonly string[]): string {
  const config = shortest(join(dir, CONFIG))
  return `Wrote
${paths.map((path) => `  ${shortest(path)}`).join('\n')}

Next:
  holdfast check --config ${config}          is this machine ready for it?
  holdfast policy test --config ${config}    the tests beside the rules
  holdfast run --config ${config}
`
}
