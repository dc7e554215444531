/** `holdfast probe` in this process against services of the test: fresh tokens for each run, and no time passes. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Io } from '../../src/cli/io.ts'
import { type ProbeOptions, probe } from '../../src/cli/probe.ts'
import { type LabKey, readLabKey } from '../../src/probe/key.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { type KeptIo, keptIo } from './io.ts'
import { type Ran, ranOf } from './probe-report.ts'
import { OTHER_AUDIENCE, openProbeRig, type ProbedService, type ProbeRig } from './probed-service.ts'

export const PROBE_DEFAULTS = {
  late: '60s',
  patience: '5m',
  maxTtl: '10m',
  nonceLife: '5m',
  rate: 100,
} as const

type Files = Pick<ProbeOptions, 'tokenFile' | 'keyFile' | 'revokedFile' | 'otherAudienceFile' | 'ca'>

export interface ProbeLab extends AsyncDisposable {
  readonly rig: ProbeRig
  readonly key: LabKey
  /** Of fresh tokens: each run waits until they have ended. */
  files(): Promise<Files>
  io(): KeptIo
  run(service: Pick<ProbedService, 'origin' | 'revoked'>, over?: Partial<ProbeOptions>): Promise<Ran>
}

/** Opens it; tokens live `ttl` seconds. */
export async function openProbeLab(ttl?: number): Promise<ProbeLab> {
  const rig = await (ttl === undefined ? openProbeRig() : openProbeRig(ttl))
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keyFile = rig.file('key.json', JSON.stringify(privateKey.export({ format: 'jwk' })))
  const key = readLabKey(keyFile, readFileSync(keyFile, 'utf8'))
  const ca = rig.file('ca.pem', rig.ca.pem)
  let revokedId: unknown
  const lab: ProbeLab = {
    rig,
    key,
    files: async () => {
      const revoked = await rig.token(key)
      revokedId = parseJws(revoked)?.payload['jti']
      return {
        keyFile,
        ca,
        tokenFile: rig.file('token', await rig.token(key)),
        revokedFile: rig.file('revoked', revoked),
        otherAudienceFile: rig.file('other', await rig.token(key, OTHER_AUDIENCE)),
      }
    },
    io: () => {
      const moving: Partial<Io> = {
        now: () => Math.floor(rig.clock.now() / 1000),
        sleep: async (ms) => rig.clock.advance(ms),
      }
      return Object.assign(keptIo(), moving)
    },
    run: async (service, over = {}) => {
      const options = { ...(await lab.files()), ...PROBE_DEFAULTS, output: 'json', ...over } as const
      service.revoked.add(revokedId)
      const io = lab.io()
      const code = await probe(`${service.origin}/v1/items`, options, io)
      return ranOf(code, io.written.out)
    },
    [Symbol.asyncDispose]: () => rig[Symbol.asyncDispose](),
  }
  return lab
}
