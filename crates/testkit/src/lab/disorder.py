# Moves frames between two interfaces, late, in another order and some twice. The kernel hands out and takes frames with what it still
# has to do to them (checksums, segmentation), so that nothing is lost but what is meant to be.
import heapq, random, select, socket, sys, time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, ETH_P_ALL = 263, 15, 23, 3
chance = random.Random(int(sys.argv[3]))


def opened(name):
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    frames.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    frames.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    frames.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    frames.bind((name, ETH_P_ALL))
    frames.setblocking(False)
    return frames


one, other = opened(sys.argv[1]), opened(sys.argv[2])
waiting, number = [], 0
print("done", flush=True)
while True:
    left = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    ready, _, _ = select.select([one, other, sys.stdin], [], [], left)
    if sys.stdin in ready:
        break
    for source, target in ((one, other), (other, one)):
        if source not in ready:
            continue
        for _ in range(64):
            try:
                frame = source.recv(1 << 17)
            except BlockingIOError:
                break
            # Three in ten are late by up to 40 ms, others hardly; three in a hundred come twice.
            for _ in range(2 if chance.random() < 0.03 else 1):
                late = chance.uniform(0.005, 0.04) if chance.random() < 0.3 else 0.001
                number += 1
                heapq.heappush(waiting, (time.monotonic() + late, number, frame, target))
    now = time.monotonic()
    while waiting and waiting[0][0] <= now:
        _, _, frame, target = heapq.heappop(waiting)
        try:
            target.send(frame)
        except OSError:
            pass  # The interface is down, or its queue is full.
