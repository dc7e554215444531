/** `holdfast completion bash|zsh|fish`: scripts made from the commands themselves, so that they cannot lag behind. */
import type { Command } from 'commander'
import { Fault } from '../base/fault.ts'

interface Words {
  /** `fetch x509`; empty for `holdfast` alone. */
  readonly path: string
  readonly says: string
  /** Commands below it, and its options. */
  readonly words: readonly { readonly word: string; readonly says: string }[]
}

const SHELLS = { bash, zsh, fish } as const

/** The script for `shell`; throws usage for another one. */
export function completion(shell: string, program: Command): string {
  if (!Object.hasOwn(SHELLS, shell)) {
    throw new Fault('usage', `there is no completion for ${JSON.stringify(shell)}`, {
      action: `Name one of ${Object.keys(SHELLS).join(', ')}.`,
    })
  }
  return SHELLS[shell as keyof typeof SHELLS](wordsOf(program, ''))
}

function wordsOf(command: Command, path: string): readonly Words[] {
  const commands = command.commands.map((each) => ({ word: each.name(), says: each.description() }))
  const options = command.options.flatMap(({ long, description }) =>
    long ? [{ word: long, says: description }] : [],
  )
  const own = { path, says: command.description(), words: [...commands, ...options] }
  return [own, ...command.commands.flatMap((each) => wordsOf(each, `${path} ${each.name()}`.trim()))]
}

function joined({ words }: Words): string {
  return words.map(({ word }) => word).join(' ')
}

/** After words that take a file, the shell's own file names. */
function bash(all: readonly Words[]): string {
  const cases = all.map((each) => `    '${each.path}') words='${joined(each)}' ;;`)
  return `# bash completion for holdfast
_holdfast() {
  local current=\${COMP_WORDS[COMP_CWORD]} path='' words='' index
  for ((index = 1; index < COMP_CWORD && index < 3; index++)); do
    [[ \${COMP_WORDS[index]} == -* ]] && break
    path="\${path:+$path }\${COMP_WORDS[index]}"
  done
  case $path in
${cases.join('\n')}
    *) case \${COMP_WORDS[1]} in
${all
  .filter(({ path }) => path !== '' && !path.includes(' '))
  .map((each) => `      '${each.path}') words='${joined(each)}' ;;`)
  .join('\n')}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _holdfast holdfast
`
}

function zsh(all: readonly Words[]): string {
  return `#compdef holdfast
autoload -U +X bashcompinit && bashcompinit
${bash(all)}`
}

function fish(all: readonly Words[]): string {
  const lines = all.flatMap(({ path, words }) => {
    const parts = path.split(' ').filter((part) => part !== '')
    const seen = parts.map((part) => `__fish_seen_subcommand_from ${part}`)
    const condition = seen.length > 0 ? seen.join('; and ') : '__fish_use_subcommand'
    return words.map(({ word, says }) => {
      const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`
      return `complete -c holdfast -n '${condition}' ${what} -d '${says.replaceAll("'", "\\'")}'`
    })
  })
  return `# fish completion for holdfast\n${lines.join('\n')}\n`
}
