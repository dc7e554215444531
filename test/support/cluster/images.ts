/** Container images packed here, as `docker save` writes them: nothing is pulled. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { ROOT } from '../built-agent.ts'

/** The agent as built, with the node that runs it; and, beside it, busybox for the containers of tests. */
export const IMAGE = 'holdfast.test/holdfast:1'

/** Where a statically linked busybox is. */
const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path)) ?? ''

/** Packs an image of one program that waits; its path. */
export function packPause(dir: string, name: string): string {
  const root = join(dir, 'pause')
  mkdirSync(root, { recursive: true })
  copyFileSync(BUSYBOX, join(root, 'sleep'))
  return pack(dir, root, name, { Entrypoint: ['/sleep', '2147483647'] })
}

/** Packs the agent; `programs` are further ones, by their path in the image. */
export function packAgent(dir: string, programs: Readonly<Record<string, string>> = {}): string {
  const root = join(dir, 'agent')
  for (const name of [
    'app',
    'etc',
    'tmp',
    'usr/bin',
    'usr/sbin',
    'usr/lib',
    'usr/lib64',
    'run',
    'proc',
    'sys',
    'dev',
  ])
    mkdirSync(join(root, name), { recursive: true })
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, join(root, name))
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\n')
  addProgram(root, process.execPath, 'usr/bin/node')
  copyFileSync(BUSYBOX, join(root, 'usr/bin/busybox'))
  for (const name of ['sh', 'cat', 'sleep']) symlinkSync('busybox', join(root, 'usr/bin', name))
  for (const [path, source] of Object.entries(programs)) addProgram(root, source, path)
  for (const name of ['dist', 'proto', 'package.json'])
    cpSync(join(ROOT, name), join(root, 'app', name), { recursive: true })
  for (const name of ['caller.mjs', 'workload-caller.mjs'])
    copyFileSync(join(ROOT, 'test/support/cluster', name), join(root, 'app', name))
  for (const place of shippedPackages())
    cpSync(place, join(root, 'app', relative(ROOT, place)), { recursive: true })
  return pack(dir, root, IMAGE, { Env: ['PATH=/usr/bin'], WorkingDir: '/app' })
}

/** The folders of the packages that `npm ci --omit=dev` installs. */
function shippedPackages(): readonly string[] {
  const { stdout } = spawnSync('npm', ['ls', '--omit=dev', '--all', '--parseable'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  return stdout.split('\n').filter((line) => line.includes('/node_modules/'))
}

/** Copies a program and the libraries that it loads. */
function addProgram(root: string, source: string, path: string): void {
  const real = realpathSync(source)
  copyFileSync(real, join(root, path))
  const { stdout } = spawnSync('ldd', [real], { encoding: 'utf8' })
  for (const [, library = ''] of stdout.matchAll(/(\/\S+) \(0x/g)) {
    const to = join(root, realpathSync(dirname(library)), basename(library))
    mkdirSync(dirname(to), { recursive: true })
    if (!existsSync(to)) copyFileSync(realpathSync(library), to)
  }
}

/** One layer of what is below `root`, and the archive around it. */
function pack(dir: string, root: string, name: string, config: object): string {
  const made = join(dir, `image-${basename(root)}`)
  mkdirSync(made)
  tar(['--create', '--file', join(made, 'layer.tar'), '--numeric-owner', '--owner=0', '--group=0', '.'], root)
  const digest = createHash('sha256')
    .update(readFileSync(join(made, 'layer.tar')))
    .digest('hex')
  const rootfs = { type: 'layers', diff_ids: [`sha256:${digest}`] }
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'
  writeFileSync(join(made, 'config.json'), JSON.stringify({ architecture, os: 'linux', config, rootfs }))
  const manifest = [{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }]
  writeFileSync(join(made, 'manifest.json'), JSON.stringify(manifest))
  const archive = `${made}.tar`
  tar(['--create', '--file', archive, 'config.json', 'layer.tar', 'manifest.json'], made)
  for (const place of [made, root]) rmSync(place, { recursive: true })
  return archive
}

function tar(args: readonly string[], cwd: string): void {
  const { status, stderr } = spawnSync('tar', args, { cwd, encoding: 'utf8' })
  if (status !== 0) throw new Error(`tar ${args.join(' ')}: ${stderr}`)
}
