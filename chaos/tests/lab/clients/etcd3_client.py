"""The PyPI package etcd3, unchanged: what it promises of etcd must hold here. The first argument is the port."""

import sys
import threading

import etcd3

client = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]), timeout=10)

client.put("py/a", "1")
client.put("py/b", "2")
assert client.get("py/a")[0] == b"1"
assert [value for value, _ in client.get_prefix("py/")] == [b"1", b"2"]
assert client.replace("py/a", "1", "3") and not client.replace("py/a", "1", "4")
succeeded, answers = client.transaction(
    compare=[client.transactions.value("py/a") == "3", client.transactions.version("py/none") == 0],
    success=[client.transactions.put("py/a", "5"), client.transactions.get("py/b")],
    failure=[client.transactions.delete("py/a")],
)
assert succeeded and answers[1][0][0] == b"2"
assert client.put_if_not_exists("py/c", "6") and not client.put_if_not_exists("py/c", "7")

events, cancel = client.watch_prefix("py/")
writer = threading.Thread(target=lambda: (client.put("py/w", "8"), client.delete("py/w")))
writer.start()
seen = [type(next(events)).__name__ for _ in range(2)]
writer.join()
cancel()
assert seen == ["PutEvent", "DeleteEvent"], seen

lease = client.lease(30)
client.put("py/leased", "9", lease=lease)
assert lease.granted_ttl == 30 and 0 < lease.remaining_ttl <= 30 and lease.keys == [b"py/leased"]
assert [answer.TTL for answer in lease.refresh()] == [30]
lease.revoke()
assert client.get("py/leased")[0] is None

with client.lock("py", ttl=20) as lock:
    assert lock.is_acquired()
    assert not client.lock("py", ttl=20).acquire(timeout=1)
assert client.lock("py", ttl=20).acquire(timeout=5)

assert client.delete_prefix("py/").deleted == 3
assert len(list(client.members)) == 3
assert client.status().version.startswith("3.")
print("ok")
