/** Processes by pidfd, which names one process for certain, also after its number is used again. */
import { architecture } from "./architecture.ts";
import { declare, sys } from "./libc.ts";

const number = architecture.call;
const callPidfdOpen = declare("long syscall(long number, long pid, long flags)");
const callSendSignal = declare("long syscall(long number, long pidfd, long signal, void *info, long flags)");
const callGetFd = declare("long syscall(long number, long pidfd, long fd, long flags)");
const callPrctl = declare("int prctl(int option, long a, long b, long c, long d)");

export const SIGKILL = 9;
export const SIGTERM = 15;
export const SIGCONT = 18;
export const SIGSTOP = 19;

/** Readable (POLLIN) once the process has ended. */
export function pidfdOpen(pid: number): number {
  return sys(callPidfdOpen(number.pidfd_open, pid, 0));
}

export function pidfdSendSignal(pidfd: number, signal: number): number {
  return sys(callSendSignal(number.pidfd_send_signal, pidfd, signal, null, 0));
}

/** A copy of a descriptor of the other process. */
export function pidfdGetFd(pidfd: number, fd: number): number {
  return sys(callGetFd(number.pidfd_getfd, pidfd, fd, 0));
}

const PR_SET_PDEATHSIG = 1;
const PR_SET_IO_FLUSHER = 57;

/** The calling process gets `signal` when the thread that started it ends. */
export function setParentDeathSignal(signal: number): number {
  return sys(callPrctl(PR_SET_PDEATHSIG, signal, 0, 0, 0));
}

/**
 * Memory that this thread allocates is never waited for by writing back to a file system that it serves itself: a FUSE
 * server that replicates to local file systems would deadlock under memory pressure without it (prctl(2)).
 */
export function setIoFlusher(on: boolean): number {
  return sys(callPrctl(PR_SET_IO_FLUSHER, on ? 1 : 0, 0, 0, 0));
}

const callPrlimit = declare("int prlimit(int pid, int resource, void *fresh, void *old)");
const RLIMIT_NOFILE = 7;
const descriptorsAtMost = 1 << 20;

/** Lets this process open as many files as the kernel allows (`fs.nr_open` by default); needs CAP_SYS_RESOURCE. */
export function raiseDescriptorLimit(): number {
  const limit = new BigUint64Array(2).fill(BigInt(descriptorsAtMost));
  return sys(callPrlimit(0, RLIMIT_NOFILE, limit, null));
}

const callExit = declare("void _exit(int code)");

/**
 * Ends the process at once. `process.exit` waits for worker threads, for ever if one hangs in a system call; this leaves
 * the kernel to wait for it.
 */
export function exitNow(code: number): void {
  callExit(code);
}
