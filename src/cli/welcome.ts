/** What a newcomer reads after `npm start`: what to type next, ready to be copied. */

/** The text of `run --dev`. */
export function devWelcome(socket: string, trustDomain: string): string {
  return `
Holdfast is ready: trust domain ${trustDomain}, keys in memory only.

In a second terminal:

  export SPIFFE_ENDPOINT_SOCKET=unix://${socket}

  # who am I?
  curl -s --unix-socket ${socket} -H 'workload.spiffe.io: true' http://localhost/v1/identity

  # a DPoP proof for one request (RFC 9449); the key stays here
  curl -s --unix-socket ${socket} -H 'workload.spiffe.io: true' \\
    --json '{"method":"GET","url":"https://api.example.test/v1/items"}' http://localhost/v1/dpop

  # an X.509-SVID: any SPIFFE client reads SPIFFE_ENDPOINT_SOCKET, or
  npx holdfast fetch x509

Ctrl-C stops the agent and destroys every key.
`
}
