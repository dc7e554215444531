// Builds what is shipped: one esbuild bundle per entry and the declarations of the published one.
// Packages that load native code or read .proto files at run time stay external.
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
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
  legalComments: 'linked',
  define: { __VERSION__: JSON.stringify(version) },
  logLevel: 'warning',
}

rmSync('dist', { recursive: true, force: true })
mkdirSync('dist', { recursive: true })
await build({
  ...common,
  entryPoints: { holdfast: 'src/cli/main.ts' },
  outdir: 'dist',
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  banner: { js: shebang + require },
})
await build({
  ...common,
  entryPoints: { client: 'src/client/index.ts' },
  outdir: 'dist',
  banner: { js: require },
})
chmodSync('dist/holdfast.js', 0o755)

const types = spawnSync(
  process.execPath,
  [
    'node_modules/typescript/bin/tsc',
    '--ignoreConfig',
    'src/client/index.ts',
    '--outDir',
    'dist/types',
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
if (types.status !== 0) process.exit(types.status ?? 1)
