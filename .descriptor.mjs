// Writes src/serve/descriptor.json out of the .proto files: the agent starts faster with it than with a parser.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import protobuf from 'protobufjs'

const root = fileURLToPath(new URL('.', import.meta.url))
const proto = (name) => join(root, 'proto', name)
const files = [
  'workload.proto',
  'holdfast.proto',
  'status.proto',
  'ext_authz.proto',
  'ext_proc.proto',
  'sds.proto',
].map(proto)
const loaded = new protobuf.Root()
// Only its own files are found by their paths; those of google.protobuf come with the package.
loaded.resolvePath = (_origin, target) => (target === 'status.proto' ? proto(target) : target)
const descriptor = loaded.loadSync(files, { keepCase: true }).toJSON()
writeFileSync(join(root, 'src/serve/descriptor.json'), `${JSON.stringify(descriptor, null, 2)}\n`)
