"""Does to single threads of another process what only a fault does. For x86-64 and those who may trace it.

threads.py hang PID NAME...  stops the threads of these names; prints "done"; lets them go on when its input ends.
threads.py break PID NAME    puts standard input in place of the descriptor on which that thread waits (epoll); prints "done".
threads.py panic PID NAME    has the next function of the product's own that this thread calls panic; prints "done".
"""
import ctypes
import os
import re
import subprocess
import sys
import time

PEEKUSER, POKEDATA, SINGLESTEP, GETREGS, SETREGS, DETACH, SEIZE, INTERRUPT = 3, 5, 9, 12, 13, 17, 0x4206, 0x4207
WALL = 0x40000000
DUP2, EPOLL_WAIT, EPOLL_PWAIT, EINTR = 33, 232, 281, 4
# struct user_regs_struct of sys/user.h
NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs")


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in NAMES.split()]


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, tid, data=None, address=None):
    if libc.ptrace(request, tid, address, data) < 0:
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


def symbols(pid):
    """The entries of the product's own functions, and of one of Rust's that panics and takes only where it was called."""
    listed = subprocess.run(["nm", "--defined-only", f"/proc/{pid}/exe"], check=True, stdout=subprocess.PIPE, text=True).stdout
    own, panics = set(), []
    with open(f"/proc/{pid}/maps") as maps:
        base = int(maps.read().split("-", 1)[0], 16)
    for line in listed.splitlines():
        address, _, name = line.split(" ", 2)
        if re.match(r"_ZN\d+trestle_|_R.*\d+trestle_", name) and "drop_in_place" not in name:
            own.add(base + int(address, 16))
        elif re.search(r"4core6option13unwrap_failed|_RNvNt.*4core6option13unwrap_failed", name):
            panics.append(base + int(address, 16))
    return own, panics[0]


def panic(pid, tid):
    own, unwrap_failed = symbols(pid)
    stop(tid)
    rip = ctypes.c_void_p(Registers.rip.offset)
    while (libc.ptrace(PEEKUSER, tid, rip, None) & (2**64 - 1)) not in own:
        ptrace(SINGLESTEP, tid)
        _, status = os.waitpid(tid, WALL)
        assert os.WIFSTOPPED(status), f"thread {tid} has ended"
    call = Registers()
    ptrace(GETREGS, tid, ctypes.byref(call))
    # A core::panic::Location far below the stack's end: file name with its length, line, column.
    where = call.rsp - 0x40000 & ~0xF
    for offset, word in enumerate([where + 24, 10, 1 << 32 | 1, int.from_bytes(b"threads.", "little"), int.from_bytes(b"py", "little")]):
        ptrace(POKEDATA, tid, ctypes.c_void_p(word), ctypes.c_void_p(where + 8 * offset))
    # As if the function had been this one: its caller is unwound.
    call.rdi, call.rip = where, unwrap_failed
    ptrace(SETREGS, tid, ctypes.byref(call))
    ptrace(DETACH, tid)


action, pid, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
threads = named(pid, names)
if action == "break":
    break_wait(threads[0])
elif action == "panic":
    panic(pid, threads[0])
else:
    for thread in threads:
        stop(thread)
print("done", flush=True)
if action == "hang":
    sys.stdin.read()
