import { CommanderError } from 'commander'
import { describe, expect, it } from 'vitest'
import { completion } from '../../../src/cli/completion.ts'
import { buildProgram, GREETING } from '../../../src/cli/program.ts'
import { usageFault } from '../../../src/cli/usage.ts'
import { faultOf } from '../../support/faults.ts'
import { keptIo } from '../../support/io.ts'

async function said(...args: string[]): Promise<readonly [string, string]> {
  const program = buildProgram(keptIo(), () => {})
  try {
    await program.parseAsync(args, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    const { reason, message, action } = usageFault(error, args, program)
    return [`${reason}: ${message}`, action]
  }
  throw new Error('the command line was understood')
}

describe('a command line that is not understood', () => {
  it.each([
    [['statsu'], `unknown command 'statsu', did you mean "status"?`, 'See `holdfast --help`.'],
    [['fetch', 'x590'], `unknown command 'x590', did you mean "x509"?`, 'See `holdfast fetch --help`.'],
    [
      ['status', '--wach'],
      `unknown option '--wach', did you mean "--watch"?`,
      'See `holdfast status --help`.',
    ],
    [['status', '--zzzzzz'], `unknown option '--zzzzzz'`, 'See `holdfast status --help`.'],
    [['proof', 'GET'], `missing required argument 'url'`, 'See `holdfast proof --help`.'],
    [
      ['fetch', 'jwt'],
      "required option '-a, --audience <audience...>' not specified",
      'See `holdfast fetch jwt --help`.',
    ],
    [
      ['revoke', '--pid', 'x'],
      "option '--pid <pid>' argument 'x' is invalid. Wanted a whole number above 0",
      'See `holdfast revoke --help`.',
    ],
    [
      ['status', '-o', 'yaml'],
      "option '-o, --output <form>' argument 'yaml' is invalid. Allowed choices are text, json",
      'See `holdfast status --help`.',
    ],
    [
      ['log', 'level', 'loud'],
      "command-argument value 'loud' is invalid for argument 'level'. Allowed choices are debug, info, warn, error",
      'See `holdfast log level --help`.',
    ],
  ])('is answered for %j', async (args, message, action) => {
    expect(await said(...args)).toEqual([`usage: ${message}`, action])
  })

  it('tells who forgot the dashes of npm start', async () => {
    const [message, action] = await said('run', '/tmp/x')
    expect(message).toContain("too many arguments for 'run'")
    expect(action).toContain('Did you mean `npm start -- --dir DIR`?')
  })
})

describe('every command', () => {
  const program = buildProgram(keptIo(), () => {})
  const leaves = program.commands.flatMap((command) =>
    command.commands.length > 0 ? command.commands : [command],
  )

  it('is the list of the reference', () => {
    expect(program.commands.map((command) => command.name()).sort()).toEqual(
      'approve audit check client completion drain exec explain fetch init log policy probe proof request revoke run sidecar status token verify version wait watch'.split(
        ' ',
      ),
    )
  })

  it.each(
    leaves
      .filter((leaf) => !['run', 'completion'].includes(leaf.name()))
      .map((leaf) => [leaf.name(), leaf] as const),
  )('%s answers in JSON and describes itself', (_name, leaf) => {
    expect(leaf.options.find(({ long }) => long === '--output')?.argChoices).toContain('json')
    expect(leaf.description()).not.toBe('')
    for (const option of leaf.options) expect(option.description).not.toBe('')
  })

  it('takes no secret as an argument', () => {
    const names = leaves.flatMap((leaf) => leaf.options.map(({ long }) => long))
    expect(names.filter((name) => /token|secret|key|password/.test(name ?? ''))).toEqual([
      '--token-file',
      '--secret-file',
      '--token-file',
      '--key-file',
    ])
  })

  it('stands in the greeting', () => {
    for (const command of program.commands.filter((each) => each.name() !== 'completion'))
      expect(GREETING).toContain(command.name())
  })
})

describe('completion', () => {
  const program = buildProgram(keptIo(), () => {})

  it.each(['bash', 'zsh', 'fish'])('for %s knows commands, subcommands and options', (shell) => {
    const script = completion(shell, program)
    for (const word of ['explain', 'x509', 'spiffe-id', 'fail-on']) expect(script).toContain(word)
  })

  it('refuses another shell', () => {
    expect(faultOf(() => completion('tcsh', program))).toBe('usage: there is no completion for "tcsh"')
  })
})
