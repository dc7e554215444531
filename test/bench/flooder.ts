/** The flooding process: as another uid it opens many connections, sends one byte on each and says nothing more. */
import { connect, type Socket } from 'node:net'

const FLOODER_UID = 65_533

const [, , path = '', argument] = process.argv
const connections = Number(argument)

process.setgroups?.([])
process.setgid?.(FLOODER_UID)
process.setuid?.(FLOODER_UID)
let open: readonly Socket[] = []
process.on('message', (wish) => {
  for (const each of open) each.destroy()
  open = wish === 'open' ? Array.from({ length: connections }, openSilent) : []
})
process.once('disconnect', () => process.exit())
process.send?.('ready')

function openSilent(): Socket {
  const socket = connect(path)
  socket.on('error', () => {})
  socket.write('P')
  return socket
}
