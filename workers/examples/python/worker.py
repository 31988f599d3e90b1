"""A Dirigent worker in Python, from docs/protocol.md alone: it offers the task `appraise`.

Needs nats-py and msgpack. Run it with NATS_URL set, or with the address as its argument.
"""

import asyncio
import hashlib
import os
import signal
import sys
import time

import msgpack
import nats
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

STREAM = "DIRIGENT_COMMANDS"
PAYLOADS = "dirigent-payloads"  # bodies of more than INLINE bytes stand in this bucket, named by their SHA-256
INLINE = 65_536
ACK_WAIT = 30  # seconds without a sign of life until a command goes to another worker


class Refused(Exception):
    """A business error: `name` is what the saga's Retry and Catch rules match on."""

    def __init__(self, name, cause, retryable=False):
        super().__init__(cause)
        self.name, self.retryable = name, retryable


async def appraise(command):
    item = command["input"]["item"]
    prices = {"violin": 900, "baton": 12}
    if item not in prices:
        raise Refused("UnknownItem", f"nobody here knows what a {item} is worth")
    return {"item": item, "price": prices[item], "attempt": command["attempt"]}


TASKS = {"appraise": appraise}


async def consumer(js, task):
    """The one durable consumer that all workers of a task share."""
    try:
        await js.consumer_info(STREAM, task)
    except NotFoundError:
        config = ConsumerConfig(
            durable_name=task, filter_subject=f"dirigent.command.{task}.*", ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT, max_deliver=20, max_ack_pending=1000, max_waiting=4096,
        )
        await js.add_consumer(STREAM, config)
    return await js.pull_subscribe_bind(task, STREAM)


async def keep_alive(message):
    while True:
        await asyncio.sleep(ACK_WAIT / 3)
        await message.in_progress()


async def unpack(js, message):
    """The body of a command, wherever it stands."""
    if name := (message.headers or {}).get("Dirigent-Payload"):
        return (await (await js.object_store(PAYLOADS)).get(name)).data
    return message.data


async def pack(js, headers, body):
    """The body of a reply as it travels."""
    if len(body) <= INLINE:
        return body
    headers["Dirigent-Payload"] = hashlib.sha256(body).hexdigest()
    await (await js.object_store(PAYLOADS)).put(headers["Dirigent-Payload"], body)
    return b""


async def execute(js, message, work):
    command = msgpack.unpackb(await unpack(js, message))
    alive = asyncio.create_task(keep_alive(message))
    began = time.monotonic()
    try:
        result = {"status": "succeeded", "output": await work(command)}
    except Refused as error:
        result = {"status": "failed", "error": error.name, "cause": str(error), "retryable": error.retryable}
    except Exception as error:  # anything else may pass
        result = {"status": "failed", "error": "States.TaskFailed", "cause": repr(error), "retryable": True}
    asked_at, ran = message.metadata.timestamp.timestamp(), time.monotonic() - began
    timing = {"asked_at": int(asked_at * 1e6), "ran_us": int(ran * 1e6)}
    reply = msgpack.packb({"v": 1, "command": command["command"], "worker": "python", "timing": timing, **result})
    headers = {"Nats-Msg-Id": command["command"] + ".r"}
    if trace := (message.headers or {}).get("traceparent"):
        headers["traceparent"] = trace
    # The reply is stored before the command is acknowledged: a crash between the two repeats it.
    await js.publish(command["reply_to"], await pack(js, headers, reply), headers=headers)
    alive.cancel()
    await message.ack()


async def offer(js, task, work, stop):
    subscription = await consumer(js, task)
    while not stop.is_set():
        try:
            for message in await subscription.fetch(1, timeout=1):
                await execute(js, message, work)
        except nats.errors.TimeoutError:
            pass


async def main():
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    connection = await nats.connect(url, max_reconnect_attempts=-1)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.gather(*(offer(connection.jetstream(), *task, stop) for task in TASKS.items()))
    await connection.close()


asyncio.run(main())
