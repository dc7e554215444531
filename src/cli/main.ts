/** The `holdfast` command: which words it takes; each command is a file of its own, loaded when it is used. */
import { Command } from 'commander'

declare const __VERSION__: string

const program = new Command('holdfast').description('An ssh-agent for services.').version(__VERSION__)
await program.parseAsync()
