"""A worker on a JetStream stream: a task that it could not finish comes again, a copy of that task does not.

Both are the same bytes with the same signature; a message is known by its place in the stream. What is dropped is
terminated, so the server does not offer it again. Keys are made here; a process of your own has ``watchword.load()``.

    $ python examples/nats_jetstream_worker.py nats://localhost:4222
    worker: agent://acme/planner wants 'backup db', and fails
    worker: agent://acme/planner wants 'backup db', redelivered, and is done
    worker: agent://acme/planner wants 'backup web', and is done
    worker: delivered 3, dropped 1 replayed and 1 unsigned; 0 wait to be acknowledged
"""

import asyncio
import secrets
import sys

import nats

from watchword import SigningKey, Watchword
from watchword.nats import connect

PLANNER, WORKER = "agent://acme/planner", "agent://acme/worker"
KEY = SigningKey.generate()


async def main(servers: str) -> None:
    """Let the worker fail once, while an attacker writes to the stream as well."""
    name = f"tasks-{secrets.token_hex(4)}"
    reading = Watchword(realm="demo", principal=WORKER, keys=[KEY.verification_key(PLANNER)])
    writing = Watchword(realm="demo", principal=PLANNER, key=KEY)
    async with (
        await connect(servers, watchword=reading) as worker,
        await connect(servers, watchword=writing) as planner,
        await nats.connect(servers) as attacker,
    ):
        store = attacker.jetstream()
        await store.add_stream(name=name, subjects=[f"{name}.*"], duplicate_window=310)  # the default policy's window
        try:
            tasks = await worker.jetstream(sole_reader=True).pull_subscribe(f"{name}.*", durable="worker")
            await planner.jetstream().publish(f"{name}.db", b"backup db")
            copy = await store.get_msg(name, 1)
            await store.publish(
                f"{name}.db", copy.data or b"", headers={"watchword": (copy.headers or {})["watchword"]}
            )
            await store.publish(f"{name}.db", b"drop db")

            (task,) = await tasks.fetch(1, timeout=30)
            print(f"worker: {task.verified.principal} wants {task.data.decode()!r}, and fails")
            await task.nak()
            (task,) = await tasks.fetch(1, timeout=30)
            again = ", redelivered" if task.verified.redelivered else ""
            print(f"worker: {task.verified.principal} wants {task.data.decode()!r}{again}, and is done")
            await task.ack_sync()

            await planner.jetstream().publish(f"{name}.web", b"backup web")
            (task,) = await tasks.fetch(1, timeout=30)  # the copy and the forgery stood before it
            print(f"worker: {task.verified.principal} wants {task.data.decode()!r}, and is done")
            await task.ack_sync()
            counts, waiting = reading.audit.counts, (await store.consumer_info(name, "worker")).num_ack_pending
            dropped = f"{counts['replayed']} replayed and {counts['unsigned']} unsigned"
            print(f"worker: delivered {counts['delivered']}, dropped {dropped}; {waiting} wait to be acknowledged")
        finally:
            await store.delete_stream(name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222"))
