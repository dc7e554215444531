/**
 * `npm run demo`: a request succeeds, its token is stolen, and the theft is worth nothing. Every part is real; each step
 * says what came back, why, and who decided. Ends with 1 when a step did not go as it should.
 */
import { tellGateway } from './gateway.ts'
import { type Parts, quietly, startParts } from './parts.ts'
import { asThief, forge, revokeTarget, steal, throughAgent } from './senders.ts'
import { beginning, Teller } from './tell.ts'

async function tell(parts: Parts, teller: Teller): Promise<void> {
  const { agent, careful, careless, issuer } = parts
  teller.say(`
Holdfast: a token is stolen, and it is worth nothing

  authorization server   ${issuer.issuer}  oidc-provider, binds tokens to a key (DPoP)
  careful server         https://localhost:${careful.port}  checks token and proof
  careless server        https://localhost:${careless.port}  takes a token from whoever sends it
  agent                  pid ${agent.pid}  holds the key, gets the token, makes the proof
`)
  teller.heads()
  await teach(parts, teller)
  const loot = steal(parts)
  teller.say(`
    The log of the careful server has it all:
      Authorization: DPoP ${beginning(loot.token)}
      DPoP: ${beginning(loot.proof)}
`)
  await replay(parts, teller, loot)
  teller.say(`
    $ holdfast revoke --target orders
`)
  await revokeTarget(parts)
  teller.step('service, through the agent: asks again', await throughAgent(parts), {
    status: 403,
    reason: 'revoked',
  })
}

async function teach(parts: Parts, teller: Teller): Promise<void> {
  teller.say(`
    $ curl --unix-socket ${parts.egress} http://orders/v1/items
`)
  teller.step('service, through the agent: no key, no token', await throughAgent(parts), { status: 200 })
}

async function replay(
  parts: Parts,
  teller: Teller,
  { token, proof }: ReturnType<typeof steal>,
): Promise<void> {
  const { careful, careless } = parts
  const bound = `DPoP ${token}`
  const refused = (reason: string) => ({ status: 401, reason })
  const send = (port: number, headers: Readonly<Record<string, string>>) => asThief(parts, port, headers)
  teller.step(
    'thief, careless server: as bearer, and it works',
    await send(careless.port, { authorization: `Bearer ${token}` }),
    { status: 200 },
  )
  teller.step(
    'thief, careful server: as bearer',
    await send(careful.port, { authorization: `Bearer ${token}` }),
    refused('invalid_token'),
  )
  teller.step(
    'thief, careful server: without a proof',
    await send(careful.port, { authorization: bound }),
    refused('invalid_dpop_proof'),
  )
  teller.step(
    'thief, careful server: with the stolen proof',
    await send(careful.port, { authorization: bound, dpop: proof }),
    refused('invalid_dpop_proof'),
  )
  teller.step(
    'thief, careful server: a proof by his own key',
    await send(careful.port, { authorization: bound, dpop: await forge(parts, token) }),
    refused('invalid_token'),
  )
}

async function main(): Promise<void> {
  const teller = new Teller((text) => void process.stdout.write(text))
  const began = performance.now()
  await using parts = await startParts()
  await tell(parts, teller)
  await quietly(() => tellGateway(teller))
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  const end =
    teller.wrong === 0
      ? 'Everything went as it should: the token is of use only with a key, and the key stays in the agent'
      : `Steps that went wrong: ${teller.wrong}`
  teller.say(`\n${end} (${seconds} s).\n`)
  if (teller.wrong > 0) process.exitCode = 1
}

try {
  await main()
} catch (error) {
  process.stderr.write(
    `the demo could not be shown: ${error instanceof Error ? error.message : String(error)}\n`,
  )
  process.exitCode = 1
}
