"""A FUSE file system of one program, `app`, that stops answering when told to: usage fuse.py PROGRAM MOUNTPOINT.

Says "mounted"; a line on standard input makes it deaf; ten seconds later it ends, so that a caller who was caught by
it is let go and its test fails instead of hanging."""
import ctypes, os, select, struct, sys, time

program, mountpoint = sys.argv[1:3]
data = open(program, 'rb').read()
libc = ctypes.CDLL(None, use_errno=True)
fuse = os.open('/dev/fuse', os.O_RDWR)
options = b'fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other' % fuse
if libc.mount(b'fuse', mountpoint.encode(), b'fuse', 6, options) != 0:
    sys.exit('mount: errno %d' % ctypes.get_errno())
print('mounted', flush=True)

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, INTERRUPT = 1, 2, 3, 14, 15, 18, 25, 26, 27, 36
ENOENT, ENOSYS = 2, 38


def attributes(node):
    mode, size = (0o40755, 0) if node == 1 else (0o100755, len(data))
    return struct.pack('<6Q10I', node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(opcode, node, body):
    if opcode == INIT:
        return struct.pack('<4I2H2I2H8I', 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, *[0] * 8)
    if opcode == GETATTR:
        return struct.pack('<Q2I', 0, 0, 0) + attributes(node)
    if opcode == LOOKUP:
        return struct.pack('<4Q2I', 2, 0, 0, 0, 0, 0) + attributes(2) if body == b'app\0' else -ENOENT
    if opcode in (OPEN, OPENDIR):
        return struct.pack('<Q2I', 0, 0, 0)
    if opcode == READ:
        offset, size = struct.unpack_from('<QI', body, 8)
        return data[offset:offset + size]
    return b'' if opcode in (RELEASE, FLUSH) else -ENOSYS


deaf = None
while deaf is None or time.monotonic() < deaf + 10:
    ready, _, _ = select.select([fuse] * (deaf is None) + [0] * (deaf is None), [], [], 0.1)
    if 0 in ready and sys.stdin.readline() is not None:
        deaf = time.monotonic()
        print('deaf', flush=True)
        continue
    if fuse not in ready:
        continue
    request = os.read(fuse, 1 << 18)
    opcode, unique, node = struct.unpack_from('<IQQ', request, 4)
    if opcode in (FORGET, INTERRUPT):
        continue
    result = answer(opcode, node, request[40:])
    error, payload = (result, b'') if isinstance(result, int) else (0, result)
    os.write(fuse, struct.pack('<IiQ', 16 + len(payload), error, unique) + payload)
