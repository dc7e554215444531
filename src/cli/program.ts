/** Every word that `holdfast` takes. A command's own code is loaded when it is used: start-up stays small. */
import { Argument, Command, InvalidArgumentError, Option } from 'commander'
import { EXIT, type Io } from './io.ts'

/** Told how the command ended, `exec` with its command's own code; not called by `run`, which ends with its agent. */
export type Done = (code: number) => void

/** The commands, writing to `io`. Usage errors are thrown as CommanderErrors. */
export function buildProgram(io: Io, done: Done): Command {
  const program = new Command('holdfast')
    .description('An ssh-agent for services: identities and proofs for the processes of one machine.')
    .version(io.version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'say what a command takes')
    .helpCommand('help [command]', 'say what a command takes')
    .configureOutput({ writeOut: (text) => io.out(text), writeErr: () => {}, getOutHasColors: () => false })
    .exitOverride()
  addRun(program, io)
  addWorkloadCommands(program, io, done)
  addFetch(program, io, done)
  addRelays(program, io, done)
  addOperatorCommands(program, io, done)
  addRevoke(program, io, done)
  addFileCommands(program, io, done)
  addCheck(program, io, done)
  addProbe(program, io, done)
  addVerify(program, io, done)
  addCompletion(program, io, done)
  return program
}

/** What `holdfast` alone says. */
export const GREETING = `Holdfast, an ssh-agent for services: the keys stay here, you get identities and proofs.

Start with
  holdfast run --dev                                an agent on this machine, without any file
  holdfast fetch x509                               in a second terminal: who am I?
  holdfast proof GET https://api.example.test/      a DPoP proof for one request

Ask              status  watch  explain  check  wait  version
Send             request  token  exec  sidecar
Prove            probe  verify
Operate          run  approve  revoke  drain  log  client
Policy, audit    init  policy  audit

holdfast COMMAND --help says what each takes; -o json works everywhere.
`

/** `work` and then its exit code. */
function ending<A extends readonly unknown[]>(done: Done, work: (...args: A) => Promise<number>) {
  return async (...args: A): Promise<void> => done(await work(...args))
}

function withOutput(command: Command, forms: readonly string[] = ['text', 'json']): Command {
  return command.addOption(
    new Option('-o, --output <form>', 'how the answer is written').choices(forms).default('text'),
  )
}

function asWorkload(command: Command): Command {
  return withOutput(command)
    .option('--socket <path>', 'the workload socket (else SPIFFE_ENDPOINT_SOCKET, else the default)')
    .option('--dir <dir>', "the agent's directory")
}

function asOperator(command: Command): Command {
  return withOutput(command).option('--dir <dir>', "the agent's directory")
}

function wholeNumber(text: string): number {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Wanted a whole number above 0.')
}

function collected(text: string, others: readonly string[] = []): readonly string[] {
  return [...others, text]
}

function addRun(program: Command, io: Io): void {
  program
    .command('run')
    .description('run the agent')
    .option('--dev', 'a trust domain, entries and policy for this user; needs no file')
    .option('--config <file>', 'the configuration file')
    .option('--dir <dir>', 'the directory of the sockets')
    .option('--takeover', 'replace a running agent once this one is ready')
    .action(async (options) => (await import('./run.ts')).run(options, io.version))
}

function addWorkloadCommands(program: Command, io: Io, done: Done): void {
  asWorkload(program.command('proof <method> <url>'))
    .description('a DPoP proof for one request, ready for curl')
    .option('--token-file <file>', 'the access token that goes with the request; - is standard input')
    .option('--nonce <nonce>', "the server's DPoP-Nonce")
    .option('--jkt <thumbprint>', 'which key signs')
    .option('--spiffe-id <id>', 'which identity asks')
    .option('--header', 'only the header: holdfast proof GET URL --header | curl -H @- URL')
    .action(
      ending(done, async (method, url, options) =>
        (await import('./proof.ts')).proof(method, url, options, io),
      ),
    )
  asWorkload(program.command('request <method> <url>'))
    .description('a request through the egress door; the host of the URL names a target')
    .option('-d, --data <data>', 'the body; @FILE reads a file, @- standard input')
    .option('-H, --header <header>', 'a header: "Name: value"; may be repeated', collected)
    .option('--spiffe-id <id>', 'which identity asks')
    .action(
      ending(done, async (method, url, options) =>
        (await import('./request.ts')).request(method, url, options, io),
      ),
    )
  asWorkload(program.command('explain <method> <url>'))
    .description(
      'why a request would be allowed or not, and the smallest change; explain pod NAMESPACE/NAME: who its containers are',
    )
    .option('--pid <pid>', 'for another process (asks the admin socket)', wholeNumber)
    .action(
      ending(done, async (method, url, options) =>
        (await import('./explain.ts')).explain(method, url, options, io),
      ),
    )
  asWorkload(program.command('wait'))
    .description('return once the agent answers')
    .option('--identity', 'once this process has an identity')
    .option('--timeout <duration>', 'give up after this time', '30s')
    .action(ending(done, async (options) => (await import('./wait.ts')).wait(options, io)))
}

function addFetch(program: Command, io: Io, done: Done): void {
  const fetch = program.command('fetch').description('what the Workload API gives this process')
  const kind = (name: string, says: string, write: string) =>
    asWorkload(fetch.command(name)).description(says).option('--write <dir>', `store ${write} there`)
  const load = () => import('./fetch.ts')
  kind('x509', 'X.509-SVIDs', 'svid.pem, key.pem and bundle.pem')
    .option('--spiffe-id <id>', 'which identity')
    .action(ending(done, async (options) => (await load()).fetchX509(options, io)))
  kind('jwt', 'a JWT-SVID, alone on standard output', 'svid.jwt')
    .requiredOption('-a, --audience <audience...>', 'whom it is for')
    .option('--spiffe-id <id>', 'which identity')
    .action(ending(done, async (options) => (await load()).fetchJwt(options, io)))
  kind('bundle', 'the authorities of each trust domain', 'certificates and JWK Sets').action(
    ending(done, async (options) => (await load()).fetchBundle(options, io)),
  )
  kind('wit', 'WIT-SVIDs', 'wit.jwt and wit.key.json')
    .option('--spiffe-id <id>', 'which identity')
    .action(ending(done, async (options) => (await load()).fetchWit(options, io)))
}

function addRelays(program: Command, io: Io, done: Done): void {
  asWorkload(program.command('exec <command...>'))
    .description('a command with an egress socket of its own, HOLDFAST_EGRESS_SOCKET, which ends with it')
    .option('--only <target>', 'let through TARGET, or TARGET:METHOD, only; may be repeated', collected)
    .addHelpText('after', '\nholdfast exec --only orders:GET -- ./job.sh')
    .action(ending(done, async (command, options) => (await import('./exec.ts')).exec(command, options, io)))
  asWorkload(program.command('sidecar'))
    .description('a loopback port for clients without unix sockets, which speaks as this process')
    .requiredOption('--secret-file <file>', 'what clients show as Holdfast-Secret; made when it is not there')
    .option('--port <port>', 'the port on 127.0.0.1; 0 takes any')
    .option('--listen <address>', '127.0.0.1:PORT or [::1]:PORT instead')
    .option('--allow-host-network', 'run where every process of the host reaches the port')
    .action(ending(done, async (options) => (await import('./sidecar.ts')).sidecar(options, io)))
}

function addOperatorCommands(program: Command, io: Io, done: Done): void {
  asOperator(program.command('status'))
    .description('how the agent is, and how strong each identity')
    .option('-w, --watch', 'again every 2 s')
    .action(ending(done, async (options) => (await import('./status.ts')).status(options, io)))
  asOperator(program.command('watch'))
    .description('decisions as they are made')
    .option('--deny', 'refusals only')
    .option('--spiffe-id <id>', 'of this identity only')
    .action(ending(done, async (options) => (await import('./watch.ts')).watch(options, io)))
  asOperator(program.command('approve [id]'))
    .description('requests that wait for a person; with an id, let that one go on')
    .option('--deny', 'refuse it instead')
    .action(ending(done, async (id, options) => (await import('./approve.ts')).approve(id, options, io)))
  asOperator(program.command('drain'))
    .description('let calls under way end, then the agent')
    .action(ending(done, async (options) => (await import('./operate.ts')).drain(options, io)))
  const client = program
    .command('client')
    .description('the clients that the agent is at authorization servers')
  asOperator(client.command('register-info <name>'))
    .description('what to enter at the authorization server that policy calls so')
    .action(
      ending(done, async (name, options) => (await import('./client.ts')).registerInfo(name, options, io)),
    )
  const log = program.command('log').description("the agent's log")
  const level = new Argument('<level>', 'the least grave lines').choices(['debug', 'info', 'warn', 'error'])
  asOperator(log.command('level').description('log from a level on').addArgument(level)).action(
    ending(done, async (name, options) => (await import('./operate.ts')).setLogLevel(name, options, io)),
  )
}

function addRevoke(program: Command, io: Io, done: Done): void {
  asOperator(program.command('revoke'))
    .description('end leases and keys at once')
    .option('--spiffe-id <id>', 'of an identity')
    .option('--jkt <thumbprint>', 'one key')
    .option('--pid <pid>', 'of a process', wholeNumber)
    .option('--target <name>', 'everything for a target')
    .option('--for <duration>', 'only for this time')
    .option('--lift', 'take the revocation back')
    .action(ending(done, async (options) => (await import('./revoke.ts')).revoke(options, io)))
}

function addFileCommands(program: Command, io: Io, done: Done): void {
  withOutput(program.command('init'))
    .description('write a configuration and policy files to begin with')
    .option('--dir <dir>', 'where to', 'holdfast')
    .option('--trust-domain <name>', 'whose identities these are')
    .action(ending(done, async (options) => (await import('./init.ts')).init(options, io)))
  const token = program.command('token').description('access tokens, without an agent')
  withOutput(token.command('inspect'))
    .description('claims, binding and expiry of a token from a file or standard input; never the token')
    .option('--file <file>', 'where the token is (else standard input)')
    .action(ending(done, async (options) => (await import('./token.ts')).inspectToken(options, io)))
  const policy = program.command('policy').description('policy files, without an agent')
  const onFiles = (name: string, says: string) =>
    withOutput(policy.command(`${name} [files...]`))
      .description(says)
      .option('--config <file>', 'the configuration that names the files')
      .option('--dir <dir>', "the agent's directory, for its policy/")
      .option('--trust-domain <name>', 'whose policy this is')
  onFiles('check', 'what is wrong or weak in policy files, and in manifests of custom resources beside them')
    .addOption(new Option('--fail-on <grade>', 'what fails').choices(['error', 'warn']).default('error'))
    .action(
      ending(done, async (files, options) => (await import('./policy.ts')).checkFiles(files, options, io)),
    )
  onFiles('test', 'run the tests beside the rules').action(
    ending(done, async (files, options) => (await import('./policy.ts')).testFiles(files, options, io)),
  )
  const audit = program.command('audit').description('the audit log')
  withOutput(audit.command('verify [file]'))
    .description('find edits, reordering, cut tails and restored copies')
    .option('--anchor <file>', "the agent's log as it was kept elsewhere")
    .option('--dir <dir>', "the agent's directory")
    .action(ending(done, async (file, options) => (await import('./audit.ts')).verify(file, options, io)))
}

function addCheck(program: Command, io: Io, done: Done): void {
  withOutput(program.command('check'), ['text', 'short', 'json'])
    .description('is everything as it should be, here and in the agent')
    .option('--pre', 'before an agent runs: machine, directory, configuration')
    .option('--config <file>', 'check this configuration and its policy too')
    .option('--dir <dir>', "the agent's directory")
    .option('--socket <path>', 'the workload socket')
    .option('--kubernetes', 'check a cluster instead: in a pod, or through kubectl proxy')
    .option('--server <url>', 'what kubectl proxy listens on, with --kubernetes')
    .option('--namespace <name>', 'where the agents run, with --kubernetes')
    .option('--wait [duration]', 'try again until everything passes (30s)')
    .addOption(new Option('--fail-on <grade>', 'what fails').choices(['error', 'warn']).default('error'))
    .action(ending(done, async (options) => (await import('./check.ts')).check(options, io)))
}

function addProbe(program: Command, io: Io, done: Done): void {
  asWorkload(program.command('probe <url>'))
    .description('the replay lab: send what a thief would, and say who has to act')
    .option('--target <name>', 'a target of the agent that this process has a probe grant for')
    .option('--other-target <name>', 'such a target with another audience')
    .option('--spiffe-id <id>', 'which identity asks')
    .option('--token-file <file>', 'a token bound to the key in --key-file, instead of the agent')
    .option('--key-file <file>', 'the private P-256 key of the token: JWK or PEM')
    .option('--expired-file <file>', 'such a token that has ended')
    .option('--revoked-file <file>', 'such a token that was revoked')
    .option('--other-audience-file <file>', 'such a token for another audience')
    .option('--head', 'send HEAD instead of GET')
    .option('--hop <name=url>', 'a place on the way, from the outside in; may be repeated', collected)
    .option('--behind <url>', 'the service itself, behind its gateway')
    .option(
      '--audit <[name=]path[#route]>',
      'the audit file or admin socket of a verifier: what it saw; may be repeated',
      collected,
    )
    .option(
      '--downstream-audit <[name=]path[#route]>',
      'the same, of a service that this one calls; may be repeated',
      collected,
    )
    .option('--accept <file>', 'risks that somebody answers for')
    .option('--baseline <file>', 'an earlier report (-o json): say what differs')
    .option('--every <duration>', 'again and again, until Ctrl-C')
    .option('--late <duration>', 'how long before a proof is tried again', '60s')
    .option('--patience <duration>', 'how long to wait for the token to end', '5m')
    .option('--nonce-life <duration>', 'how long a nonce of the server may be good', '5m')
    .option('--quick', 'wait for nothing')
    .option('--max-ttl <duration>', 'how long a token may live', '10m')
    .option('--rate <count>', 'requests a second', wholeNumber, 5)
    .option('--ca <file>', "roots of the places (PEM) instead of the system's")
    .option('--covers-query', 'expect the query to be bound too')
    .option('--junit <file>', 'write the report as JUnit XML')
    .option('--html <file>', 'write the report as one HTML page')
    .action(ending(done, async (url, options) => (await import('./probe.ts')).probe(url, options, io)))
}

function addVerify(program: Command, io: Io, done: Done): void {
  withOutput(program.command('verify'))
    .description('a captured request, check by check; nothing is sent')
    .requiredOption('--request <file>', 'raw HTTP text, or what curl -v shows; - is standard input')
    .option('--url <url>', 'the public URL of the request (else that of Host)')
    .option('--jwks <file>', 'the keys of the authorization server')
    .option('--at <time>', 'when it was captured (else now)')
    .option('--window <duration>', 'how old a proof may be', '60s')
    .action(ending(done, async (options) => (await import('./verify.ts')).verifyCapture(options, io)))
}

function addCompletion(program: Command, io: Io, done: Done): void {
  withOutput(program.command('version'))
    .description("this command's version, and the agent's")
    .option('--dir <dir>', "the agent's directory")
    .action(ending(done, async (options) => (await import('./version.ts')).version(options, io)))
  program
    .command('completion <shell>')
    .description('completion for bash, zsh or fish')
    .addHelpText('after', '\nholdfast completion bash > /etc/bash_completion.d/holdfast')
    .action(async (shell) => {
      const { completion } = await import('./completion.ts')
      io.out(completion(shell, program))
      done(EXIT.ok)
    })
}
