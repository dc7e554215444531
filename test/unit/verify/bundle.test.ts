/** The published middleware stands alone: it is small, and brings neither native code nor any package along. */
import { build } from 'esbuild'
import { expect, it } from 'vitest'

const ROOT = new URL('../../..', import.meta.url).pathname
const SIZE_LIMIT = 168 * 1024

it('is built of this source and of Node alone, and stays small', async () => {
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: ['src/verify/index.ts'],
    outdir: 'dist',
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    minifySyntax: true,
    minifyWhitespace: true,
    metafile: true,
    write: false,
  })
  const [output] = Object.values(metafile.outputs)
  expect(output?.imports.filter(({ path }) => !path.startsWith('node:'))).toEqual([])
  expect(Object.keys(metafile.inputs).filter((name) => !name.startsWith('src/'))).toEqual([])
  expect(output?.bytes).toBeLessThan(SIZE_LIMIT)
})
