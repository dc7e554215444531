/** The `holdfast` command: which words it takes; each command is a file of its own, loaded when it is used. */
import { Command } from 'commander'

declare const __VERSION__: string

const program = new Command('holdfast').description('An ssh-agent for services.').version(__VERSION__)

program
  .command('run')
  .description('run the agent')
  .option('--dev', 'a trust domain, entries and policy for this user; needs no file')
  .option('--config <file>', 'the configuration file')
  .option('--dir <dir>', 'the directory of the sockets')
  .option('--takeover', 'replace a running agent once this one is ready')
  .action(async (options) => {
    const { run } = await import('./run.ts')
    await run(options, __VERSION__)
  })

await program.parseAsync()
