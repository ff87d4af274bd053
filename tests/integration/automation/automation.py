"""Drives a cluster as an automation would: writes on one member, repeats on another, watches on the third."""

import queue
import sys
import threading
import time

import grpc
import health_pb2
import health_pb2_grpc
import reflection_pb2
import reflection_pb2_grpc
from google.protobuf import field_mask_pb2
from trestle.v1 import cluster_pb2, cluster_pb2_grpc, listener_pb2, listener_pb2_grpc, pool_pb2, pool_pb2_grpc

DEADLINE_S = 20


def persist(call, request):
    """Repeats a call while no leader is there to take it; the request id makes that safe."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            return call(request, timeout=5)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(0.05)


def refused(code, call, request):
    """The call must fail with this code; answers the error."""
    try:
        persist(call, request)
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        return error
    raise AssertionError(f"{code} was expected")


def listed_services(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest
    requests = [ask(list_services=""), ask(file_containing_symbol="trestle.v1.PoolService")]
    services, described = list(stub.ServerReflectionInfo(iter(requests), timeout=DEADLINE_S))
    assert described.file_descriptor_response.file_descriptor_proto, described
    return {service.name for service in services.list_services_response.service}


def collect(watch, events):
    """Puts every message into the queue until the watch is cancelled."""
    try:
        for message in watch:
            events.put(message)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.CANCELLED:
            events.put(error)


def next_event(events):
    """The next change; bookmarks are passed over."""
    while True:
        message = events.get(timeout=DEADLINE_S)
        if isinstance(message, grpc.RpcError):
            raise message
        if message.events:
            assert len(message.events) == 1, message
            return message.revision, message.events[0]


def main(first, second, third):
    channels = [grpc.insecure_channel(address) for address in (first, second, third)]
    pools = [pool_pb2_grpc.PoolServiceStub(channel) for channel in channels]
    listeners = listener_pb2_grpc.ListenerServiceStub(channels[1])

    # What is there.
    services = listed_services(channels[0])
    expected = {f"trestle.v1.{name}Service" for name in ("Pool", "Listener", "Member", "Cluster")}
    assert expected | {"grpc.health.v1.Health"} <= services, services
    health = health_pb2_grpc.HealthStub(channels[0]).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert health.status == health_pb2.HealthCheckResponse.SERVING, health

    # A watch on the third member; its bookmark says that it stands.
    watch = cluster_pb2_grpc.ClusterServiceStub(channels[2]).WatchCluster(cluster_pb2.WatchClusterRequest())
    events = queue.Queue()
    threading.Thread(target=collect, args=(watch, events), daemon=True).start()
    bookmark = events.get(timeout=DEADLINE_S)
    assert not isinstance(bookmark, grpc.RpcError), bookmark
    assert not bookmark.events, bookmark

    # Create, then the same request again on another member: applied once, the same answer.
    create = pool_pb2.CreatePoolRequest(pool_id="web", pool=pool_pb2.Pool(), request_id="create-web")
    created = persist(pools[0].CreatePool, create)
    assert created.name == "pools/web" and created.etag and created.revision, created
    again = persist(pools[1].CreatePool, create)
    assert (again.revision, again.etag) == (created.revision, created.etag), (again, created)
    other = pool_pb2.CreatePoolRequest(pool_id="other", request_id="create-web")
    refused(grpc.StatusCode.INVALID_ARGUMENT, pools[1].CreatePool, other)
    twice = pool_pb2.CreatePoolRequest(pool_id="web", request_id="create-web-once-more")
    refused(grpc.StatusCode.ALREADY_EXISTS, pools[1].CreatePool, twice)

    # Update with the current etag, then with the stale one.
    def update(timeout_s, etag, request_id):
        pool = pool_pb2.Pool(name="pools/web", etag=etag)
        pool.connect_timeout.FromSeconds(timeout_s)
        mask = field_mask_pb2.FieldMask(paths=["connect_timeout"])
        return pool_pb2.UpdatePoolRequest(pool=pool, update_mask=mask, request_id=request_id)

    updated = persist(pools[1].UpdatePool, update(3, created.etag, "update-web"))
    assert updated.connect_timeout.seconds == 3 and updated.etag != created.etag, updated
    stale = refused(grpc.StatusCode.ABORTED, pools[0].UpdatePool, update(4, created.etag, "update-web-stale"))
    assert "web" in stale.details(), stale.details()
    seen = persist(pools[2].GetPool, pool_pb2.GetPoolRequest(name="pools/web"))
    assert seen == updated, (seen, updated)

    # validate_only answers and changes nothing.
    listener = listener_pb2.Listener(binds=["127.0.0.1:9"], pool="pools/web")
    tried = listener_pb2.CreateListenerRequest(listener_id="web", listener=listener, validate_only=True)
    assert persist(listeners.CreateListener, tried).name == "listeners/web"
    refused(grpc.StatusCode.NOT_FOUND, listeners.GetListener, listener_pb2.GetListenerRequest(name="listeners/web"))

    # The watch saw both changes, each once, in order, and nothing else.
    deleted = persist(pools[0].DeletePool, pool_pb2.DeletePoolRequest(name="pools/web", etag=updated.etag))
    kinds = [(cluster_pb2.EVENT_TYPE_CREATED, created.revision), (cluster_pb2.EVENT_TYPE_UPDATED, updated.revision)]
    kinds.append((cluster_pb2.EVENT_TYPE_DELETED, deleted.revision))
    for kind, revision in kinds:
        at, event = next_event(events)
        assert (event.type, at, event.pool.name) == (kind, revision, "pools/web"), (at, event)
    watch.cancel()

    # A second watch, from the past, misses nothing.
    stub = cluster_pb2_grpc.ClusterServiceStub(channels[1])
    past = stub.WatchCluster(cluster_pb2.WatchClusterRequest(start_revision=created.revision), timeout=DEADLINE_S)
    seen = []
    for message in past:
        seen += [(event.type, message.revision) for event in message.events]
        if len(seen) >= len(kinds):
            break
    past.cancel()
    assert seen == kinds, (seen, kinds)
    print("all steps passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
