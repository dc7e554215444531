/** The `holdfast` command: runs what was asked for and turns its end into an exit code. */
import { CommanderError } from 'commander'
import { Fault } from '../base/fault.ts'
import { exitCodeOf, failureJson, failureText, refuseSecrets } from './failure.ts'
import { EXIT, type Io, systemIo } from './io.ts'
import { buildProgram, GREETING } from './program.ts'
import { commandOf, usageFault } from './usage.ts'

declare const __VERSION__: string

/** Runs the command in `args`; the exit code is the process's own. */
async function main(args: readonly string[], io: Io): Promise<void> {
  const program = buildProgram(io, (code) => {
    process.exitCode = code
  })
  try {
    if (args.length === 0) return io.out(GREETING)
    refuseSecrets(args)
    await program.parseAsync(args, { from: 'user' })
  } catch (caught) {
    if (!(caught instanceof CommanderError)) return fail(Fault.from(caught), args, io)
    if (caught.exitCode === EXIT.ok) return
    // `holdfast policy` alone: what it takes is the answer.
    if (caught.code === 'commander.help') {
      io.err(commandOf(args, program).helpInformation())
      process.exitCode = EXIT.usage
    } else fail(usageFault(caught, args, program), args, io)
  }
}

function fail(fault: Fault, args: readonly string[], io: Io): void {
  if (wantsJson(args)) io.out(failureJson(fault))
  else io.err(failureText(fault, process.stderr.isTTY === true && !io.environment.noColor))
  process.exitCode = exitCodeOf(fault)
}

function wantsJson(args: readonly string[]): boolean {
  // What follows is another command's.
  const end = args.indexOf('--')
  const own = end < 0 ? args : args.slice(0, end)
  return own.some((arg, index) =>
    arg === '-o' || arg === '--output'
      ? own[index + 1] === 'json'
      : arg === '-ojson' || arg === '--output=json',
  )
}

await main(process.argv.slice(2), systemIo(__VERSION__))
