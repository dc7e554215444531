/** OpenSSH's ssh-agent with an ECDSA P-256 key as a peer: its protocol (draft-ietf-sshm-ssh-agent) on its socket. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'

/** A running ssh-agent with one key. */
export interface SshAgent {
  /** Signs `data`; resolves to the signature as ssh-agent answers it. */
  sign(data: Buffer): Promise<Buffer>
  stop(): void
}

const REQUEST_IDENTITIES = 11
const SIGN_REQUEST = 13
const SIGN_RESPONSE = 14

/** Starts one; undefined on a machine without OpenSSH. */
export async function startSshAgent(): Promise<SshAgent | undefined> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-ssh-'))
  const [key, path] = [join(dir, 'key'), join(dir, 'agent.sock')]
  try {
    execFileSync('ssh-keygen', ['-q', '-t', 'ecdsa', '-b', '256', '-N', '', '-f', key])
    const child = spawn('ssh-agent', ['-D', '-a', path], { stdio: 'ignore' })
    while (!existsSync(path)) await wait(10)
    execFileSync('ssh-add', ['-q', key], {
      env: { PATH: process.env['PATH'], SSH_AUTH_SOCK: path },
      stdio: 'ignore',
    })
    return await open(path, child, dir)
  } catch {
    rmSync(dir, { recursive: true, force: true })
    return undefined
  }
}

async function open(path: string, child: ChildProcess, dir: string): Promise<SshAgent> {
  const ask = openDialogue(connect(path))
  const identities = await ask(Buffer.from([REQUEST_IDENTITIES]))
  const blob = identities.subarray(9, 9 + identities.readUInt32BE(5))
  return {
    sign: async (data) => {
      const answer = await ask(
        Buffer.concat([Buffer.from([SIGN_REQUEST]), text(blob), text(data), Buffer.alloc(4)]),
      )
      if (answer[0] !== SIGN_RESPONSE) throw new Error('ssh-agent has refused to sign')
      return answer
    },
    stop: () => {
      child.kill('SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** One question at a time; a message is its length and its bytes. */
function openDialogue(socket: Socket): (question: Buffer) => Promise<Buffer> {
  let rest: Buffer = Buffer.alloc(0)
  let answered = (_answer: Buffer) => {}
  socket.on('data', (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    if (rest.length < 4 || rest.length < 4 + rest.readUInt32BE(0)) return
    const answer = rest.subarray(4)
    rest = Buffer.alloc(0)
    answered(answer)
  })
  socket.unref()
  return (question) =>
    new Promise((resolve) => {
      answered = resolve
      socket.write(text(question))
    })
}

function text(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}
