"""Does to single threads of another process what only a fault does. For x86-64 and those who may trace it.

threads.py hang PID NAME...  stops the threads of these names; prints "done"; lets them go on when its input ends.
threads.py break PID NAME    puts standard input in place of the descriptor on which that thread waits (epoll); prints "done".
"""
import ctypes
import os
import sys
import time

SINGLESTEP, GETREGS, SETREGS, DETACH, SEIZE, INTERRUPT = 9, 12, 13, 17, 0x4206, 0x4207
WALL = 0x40000000
DUP2, EPOLL_WAIT, EPOLL_PWAIT, EINTR = 33, 232, 281, 4
# struct user_regs_struct of sys/user.h
NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs")


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in NAMES.split()]


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, tid, data=None):
    if libc.ptrace(request, tid, None, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request:#x} of {tid}: {os.strerror(error)}")


def stop(tid):
    ptrace(SEIZE, tid)
    ptrace(INTERRUPT, tid)
    os.waitpid(tid, WALL)


def named(pid, names):
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm") as comm:
            found.setdefault(comm.read().strip(), int(tid))
    # The kernel keeps 15 bytes of a name.
    return [found[name[:15]] for name in names]


def break_wait(tid):
    for _ in range(1000):
        stop(tid)
        before = Registers()
        ptrace(GETREGS, tid, ctypes.byref(before))
        if before.orig_rax in (EPOLL_WAIT, EPOLL_PWAIT):
            call = Registers.from_buffer_copy(before)
            # Once more through the instruction that it waits in, with another call.
            call.rax, call.rip, call.orig_rax = DUP2, before.rip - 2, 2**64 - 1
            call.rdi, call.rsi = 0, before.rdi
            ptrace(SETREGS, tid, ctypes.byref(call))
            ptrace(SINGLESTEP, tid)
            os.waitpid(tid, WALL)
            before.rax, before.orig_rax = 2**64 - EINTR, 2**64 - 1
            ptrace(SETREGS, tid, ctypes.byref(before))
            ptrace(DETACH, tid)
            return
        ptrace(DETACH, tid)
        time.sleep(0.001)
    raise TimeoutError(f"thread {tid} does not wait")


action, pid, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
threads = named(pid, names)
if action == "break":
    break_wait(threads[0])
else:
    for thread in threads:
        stop(thread)
print("done", flush=True)
if action == "hang":
    sys.stdin.read()
