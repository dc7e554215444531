/** Where this package's own files are, from its sources as from its bundle. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The absolute path of `name` at the package's top; bundles move code but not the top level. */
export function packageFile(name: string): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && existsSync(join(folder, name))) return join(folder, name)
    if (folder === dirname(folder)) throw new Error(`the installation lacks ${name}`)
  }
}
