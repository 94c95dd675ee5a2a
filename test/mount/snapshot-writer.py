"""An application whose files tell at which moment they were seen.

    snapshot-writer.py DIRECTORY FILES

Turn n writes n over the start of each of FILES large files, one after the other, appends n to `log`, and puts `turn`
with n in place by a rename. So at any one moment the files hold n for the first ones and n - 1 for the rest. Ends with
status 0 at SIGTERM, and with 1 at the first error. Prints each turn that is complete.
"""
import os
import signal
import sys

directory, count = sys.argv[1], int(sys.argv[2])
going = True


def stop(*_):
    global going
    going = False


signal.signal(signal.SIGTERM, stop)
size = 1 << 20
files = []
for i in range(count):
    fd = os.open(f"{directory}/file-{i}", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"%016d" % 0 + bytes([i % 251]) * (size - 16), 0)
    files.append(fd)
log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
turn = 0
while going:
    turn += 1
    for fd in files:
        data = b"%016d" % turn
        assert os.pwrite(fd, data, 0) == 16
        assert os.pwrite(fd, data, size - 16) == 16
    os.write(log, b"%d\n" % turn)
    with open(f"{directory}/turn.new", "w") as new:
        new.write(f"{turn}\n")
    os.rename(f"{directory}/turn.new", f"{directory}/turn")
    with open(f"{directory}/made-{turn % 50}", "w") as made:
        made.write(f"{turn}\n")
    if turn % 50 == 25:
        for i in range(25):
            if os.path.exists(f"{directory}/made-{i}"):
                os.unlink(f"{directory}/made-{i}")
    for fd in files:
        # A number may be read while a link comes or goes; it never stays wrong.
        assert any(os.fstat(fd).st_nlink == 1 for _ in range(200)), "a snapshot shows"
    print(turn, flush=True)
