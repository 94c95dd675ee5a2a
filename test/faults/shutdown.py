#!/usr/bin/env python3
"""shutdown.py DIRECTORY: takes a file system down at once, without writing anything back (FS_IOC_SHUTDOWN, NOLOGFLUSH)."""
import fcntl, os, struct, sys

fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587D, struct.pack("I", 2))
