/**
 * Calls one tool of an MCP server that demands DPoP. The SDK is unmodified: only its `fetch` is another, and neither
 * key nor token comes into this process.
 *
 *     node client.mjs [URL] [TOOL] [ARGUMENTS-AS-JSON]
 */
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { holdfastFetch } from 'holdfast/client'

const [url = 'http://tools/mcp', name, members = '{}'] = process.argv.slice(2)

const client = new Client({ name: 'holdfast-example', version: '1.0.0' })
// The host is the name of the target in the policy; the agent speaks TLS to it.
const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: holdfastFetch })
await client.connect(transport)
try {
  const { tools } = await client.listTools()
  console.log(`tools: ${tools.map((tool) => tool.name).join(', ')}`)
  if (name) {
    const onprogress = ({ progress, total }) => console.log(`progress: ${progress} of ${total}`)
    const { content } = await client.callTool({ name, arguments: JSON.parse(members) }, undefined, {
      onprogress,
    })
    for (const part of content) console.log(part.type === 'text' ? part.text : `(${part.type})`)
  }
} finally {
  await transport.terminateSession()
  await client.close()
}
