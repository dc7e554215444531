// Builds what is shipped: one esbuild bundle per entry and the declarations of the published ones.
// Packages that load native code or read .proto files at run time stay external.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { build } from 'esbuild'

const { version } = JSON.parse(readFileSync('package.json', 'utf8'))
const external = ['koffi', '@grpc/reflection', 'grpc-health-check']
// Bundled CommonJS packages call require(); ES modules have none of their own.
const require = "import{createRequire as __cr}from'node:module';const require=__cr(import.meta.url);"
// The hardening flags of the start script, for whoever runs the installed command.
const shebang = '#!/usr/bin/env -S node --secure-heap=1048576 --secure-heap-min=2\n'

const common = {
  bundle: true,
  platform: 'node',
  target: 'node20.19',
  format: 'esm',
  external,
  minifySyntax: true,
  // V8 keeps the source in memory and scans all of it at start; names stay, for stack traces.
  minifyWhitespace: true,
  legalComments: 'linked',
  define: { __VERSION__: JSON.stringify(version) },
  logLevel: 'warning',
}

// Built beside and renamed at the end: whoever starts the agent meanwhile gets a whole build, old or new.
const made = `.dist-${process.pid}`
mkdirSync(made, { recursive: true })
await build({
  ...common,
  entryPoints: { holdfast: 'src/cli/main.ts' },
  outdir: made,
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  banner: { js: shebang + require },
})
await build({
  ...common,
  entryPoints: { client: 'src/client/index.ts', verify: 'src/verify/index.ts' },
  outdir: made,
  // What both need is there once: a Fault of one is a Fault of the other.
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  banner: { js: require },
})
chmodSync(`${made}/holdfast.js`, 0o755)

const types = spawnSync(
  process.execPath,
  [
    'node_modules/typescript/bin/tsc',
    '--ignoreConfig',
    'src/client/index.ts',
    'src/verify/index.ts',
    '--outDir',
    `${made}/types`,
    '--rootDir',
    'src',
    '--declaration',
    '--emitDeclarationOnly',
    '--module',
    'NodeNext',
    '--target',
    'ES2023',
    '--lib',
    'ES2023,ESNext.Disposable',
    '--types',
    'node',
    '--strict',
    '--skipLibCheck',
    '--exactOptionalPropertyTypes',
    '--noUncheckedIndexedAccess',
    '--verbatimModuleSyntax',
    '--allowImportingTsExtensions',
    '--rewriteRelativeImportExtensions',
  ],
  { stdio: 'inherit' },
)
if (types.status !== 0) {
  rmSync(made, { recursive: true, force: true })
  process.exit(types.status ?? 1)
}

const old = `.dist-old-${process.pid}`
if (existsSync('dist')) renameSync('dist', old)
renameSync(made, 'dist')
rmSync(old, { recursive: true, force: true })
