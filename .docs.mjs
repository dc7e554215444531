// Writes the generated parts of README.md from the tables that the agent itself reads: commands, settings, policy, reasons.
// `--check` changes nothing and names the parts that are not what they would be.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('.', import.meta.url))
const README = join(root, 'README.md')

const SOURCES = `
export { buildProgram } from './src/cli/program.ts'
export { settingRows } from './src/config.ts'
export { policyJsonSchema } from './src/policy/schema.ts'
export { REASONS } from './src/base/reasons.ts'
export { GRPC, STATUS } from './src/serve/status.ts'
`

/** Node 20 runs no TypeScript: the tables are bundled, and packages stay where they are. */
async function loadTables() {
  const folder = join(root, 'node_modules/.cache', `holdfast-docs-${process.pid}`)
  mkdirSync(folder, { recursive: true })
  try {
    const outfile = join(folder, 'tables.mjs')
    const stdin = { contents: SOURCES, resolveDir: root }
    const common = {
      bundle: true,
      platform: 'node',
      format: 'esm',
      packages: 'external',
      logLevel: 'warning',
    }
    await build({ ...common, stdin, outfile, define: { __VERSION__: '""' } })
    return await import(pathToFileURL(outfile).href)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function table(heads, rows) {
  const cell = (text) => String(text).replaceAll('|', '\\|').replaceAll('\n', ' ')
  const line = (cells) => `| ${cells.map(cell).join(' | ')} |`
  return [line(heads), `|${heads.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}

const code = (text) => `\`${text}\``

function commandsPart({ buildProgram }) {
  const program = buildProgram({ version: '', out: () => {}, environment: {} }, () => {})
  return table(['command', 'what it does', 'options'], commandRows(program, 'holdfast'))
}

function commandRows(command, above) {
  return command.commands.flatMap((each) => {
    const args = each.registeredArguments.map((argument) =>
      argument.required ? `<${argument.name()}>` : `[${argument.name()}]`,
    )
    const path = [above, each.name()].join(' ')
    if (each.commands.length > 0) return commandRows(each, path)
    const options = each.options.filter(({ long }) => long !== '--output').map(({ flags }) => code(flags))
    return [[code([path, ...args].join(' ')), each.description(), options.join(' ')]]
  })
}

function settingsPart({ settingRows }) {
  const rows = settingRows().map(({ name, type, default: value, says }) => [code(name), type, value, says])
  return table(['setting', 'type', 'default', 'what it says'], rows)
}

function policyPart({ policyJsonSchema }) {
  return policyJsonSchema()
    .oneOf.map((layer) => {
      const name = layer.properties.layer.const
      const rows = memberRows(layer, '').filter(([member]) => member !== code('layer'))
      return `**\`layer: ${name}\`**\n\n${table(['member', 'type', 'required', 'what it says'], rows)}`
    })
    .join('\n\n')
}

function memberRows(object, above) {
  return Object.entries(object.properties).flatMap(([name, schema]) => {
    const isRequired = object.required?.includes(name) ? 'yes' : ''
    const inner = schema.items?.properties ? schema.items : undefined
    const path = `${above}${name}${inner ? '[]' : ''}`
    if (inner) return memberRows(inner, `${path}.`)
    return [[code(path), typeText(schema), isRequired, schema.description ?? '']]
  })
}

function typeText(schema) {
  if (schema.const !== undefined) return code(schema.const)
  if (schema.enum) return schema.enum.map(code).join(' or ')
  if (schema.anyOf) return schema.anyOf.map(typeText).join(' or ')
  if (schema.type === 'array') return `list of ${typeText(schema.items).replace(/^string$/, 'strings')}`
  if (schema.type === 'object') {
    const members = Object.keys(schema.properties)
    return `{${members.map((name) => (schema.required?.includes(name) ? name : `${name}?`)).join(', ')}}`
  }
  return schema.pattern?.includes('(s|m|h|d)') ? 'duration' : schema.type
}

function reasonsPart({ REASONS, STATUS, GRPC }) {
  const grpcName = Object.fromEntries(Object.entries(GRPC).map(([name, number]) => [number, name]))
  const rows = Object.entries(REASONS).map(([reason, { owner, cause, cure }]) => {
    const { grpc, http, oauth } = STATUS[reason]
    return [`<a id="${reason}"></a>${code(reason)}`, cause, cure, owner, grpcName[grpc], http, oauth]
  })
  return table(['reason', 'what happened', 'what to do', 'who acts', 'gRPC', 'HTTP', 'OAuth'], rows)
}

const PARTS = { commands: commandsPart, settings: settingsPart, policy: policyPart, reasons: reasonsPart }

/** `readme` with every generated part as the sources have it now. */
function filled(readme, tables) {
  return Object.entries(PARTS).reduce((text, [name, make]) => {
    const [start, end] = [`<!-- generated: ${name} -->`, `<!-- end: ${name} -->`]
    const from = text.indexOf(start)
    const to = text.indexOf(end)
    if (from < 0 || to < from) throw new Error(`README.md has no ${start} … ${end}`)
    return `${text.slice(0, from + start.length)}\n${make(tables)}\n${text.slice(to)}`
  }, readme)
}

const before = readFileSync(README, 'utf8')
const after = filled(before, await loadTables())
if (process.argv.includes('--check')) {
  const lines = new Set(before.split('\n'))
  const missing = after.split('\n').filter((line) => !lines.has(line))
  if (before !== after) {
    process.stderr.write(
      `README.md is not what \`npm run docs\` writes; for example:\n${missing.slice(0, 5).join('\n')}\n`,
    )
    process.exit(1)
  }
} else if (before !== after) writeFileSync(README, after)
