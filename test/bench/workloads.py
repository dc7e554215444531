"""Many small processes that each ask the egress door: usage workloads.py SOCKET COUNT TARGET...

Python, because a fork of it takes a megabyte. Each process asks for each target twice at once, then lives on until all
have been answered; the number of answers with 200 is printed.
"""
import os
import socket
import sys

path, count, targets = sys.argv[1], int(sys.argv[2]), sys.argv[3:]


def ask(target):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(300)
    connection.connect(path)
    connection.sendall(f"GET /v1/items HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode())
    return connection


def is_good(connection):
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    if not answer.startswith(b"HTTP/1.1 200 "):
        sys.stderr.write(answer.decode("latin1")[:400] + "\n")
        return False
    return True


def work(answers, leave):
    good = 0
    for target in targets:
        pair = [ask(target), ask(target)]
        good += sum(map(is_good, pair))
    os.write(answers, bytes([good]))
    os.read(leave, 1)


answers, told = os.pipe()
leave, end = os.pipe()
for _ in range(count):
    if os.fork() == 0:
        os.close(end)
        try:
            work(told, leave)
        finally:
            os._exit(0)
os.close(told)
good = heard = 0
while heard < count and (some := os.read(answers, 4096)):
    heard += len(some)
    good += sum(some)
print(good, flush=True)
os.close(end)
