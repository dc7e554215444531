/** A command line that was not understood, said as a Fault: what was seen, the nearest name, where to look. */
import type { Command, CommanderError } from 'commander'
import { Fault } from '../base/fault.ts'
import { meant } from '../base/nearest.ts'

/** The Fault of a CommanderError; its text is the library's, its suggestion ours. */
export function usageFault(error: CommanderError, args: readonly string[], program: Command): Fault {
  const command = commandOf(args, program)
  const [first = ''] = error.message.replace(/^error: /, '').split('\n')
  const message = `${first.replace(/\.$/, '')}${suggestion(error.code, first, command)}`
  const name = [...parents(command), command.name()].join(' ')
  const action =
    error.code === 'commander.excessArguments' && command.name() === 'run'
      ? 'Did you mean `npm start -- --dir DIR`? npm keeps options for itself that stand before `--`.'
      : `See \`${name} --help\`.`
  return new Fault('usage', message, { action })
}

function suggestion(code: string, message: string, command: Command): string {
  const word = /'([^']+)'/.exec(message)?.[1]
  if (word === undefined) return ''
  if (code === 'commander.unknownCommand')
    return meant(
      word,
      command.commands.map((each) => each.name()),
    )
  if (code !== 'commander.unknownOption') return ''
  const options = [...command.options, ...(command.parent?.options ?? [])]
  return meant(
    word,
    options.flatMap(({ long }) => long ?? []),
  )
}

/** The innermost command that `args` name. */
export function commandOf(args: readonly string[], program: Command): Command {
  let command = program
  for (const arg of args) {
    const next = command.commands.find((each) => each.name() === arg)
    if (!next) break
    command = next
  }
  return command
}

function parents(command: Command): readonly string[] {
  return command.parent ? [...parents(command.parent), command.parent.name()] : []
}
