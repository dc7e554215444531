"""A process that ends while a child of it still holds its connection to the egress door: usage lease.py SOCKET TARGET.

Prints when the process ended and when its connection was closed, in ns of CLOCK_MONOTONIC.
"""
import os
import socket
import sys
import time

connection = socket.socket(socket.AF_UNIX)
connection.settimeout(30)
connection.connect(sys.argv[1])
connection.sendall(f"GET /v1/hold HTTP/1.1\r\nHost: {sys.argv[2]}\r\n\r\n".encode())
head = connection.recv(65536)
if not head.startswith(b"HTTP/1.1 200 "):
    sys.exit(head.decode("latin1")[:400])
before, ending = os.pipe()
if os.fork() != 0:
    os.write(ending, str(time.monotonic_ns()).encode())
    os._exit(0)
ended = int(os.read(before, 64))
try:
    while connection.recv(65536):
        pass
except ConnectionResetError:
    pass
print(ended, time.monotonic_ns(), flush=True)
