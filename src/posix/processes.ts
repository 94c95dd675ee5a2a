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
