/** How a program of the cluster finds the API server and shows who it is. */
import { writeFileSync } from 'node:fs'
import type { KeyFiles, Pki } from './pki.ts'

/** Writes it to `file`; the file. */
export function writeKubeconfig(file: string, url: string, pki: Pki, client: KeyFiles): string {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster: { server: url, 'certificate-authority': pki.caFile } }],
    users: [{ name: 'u', user: { 'client-certificate': client.cert, 'client-key': client.key } }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  }
  writeFileSync(file, JSON.stringify(config))
  return file
}
