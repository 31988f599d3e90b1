"""A Dirigent worker in Python, from docs/protocol.md alone: it offers the task `appraise`.

Needs nats-py and msgpack. Run it with NATS_URL set, or with the address as its argument.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import time

import msgpack
import nats
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError, ObjectDeletedError, ObjectNotFoundError

STREAM = "DIRIGENT_COMMANDS"
PAYLOADS = "dirigent-payloads"  # bodies of more than INLINE bytes stand in this bucket, named by their SHA-256
INLINE = 65_536
ACK_WAIT = 30  # seconds without a sign of life until a command goes to another worker
MOST_OUTPUT = 262_144  # bytes of JSON that a saga takes, where its command does not say
PAUSE = 1  # seconds until what the broker could not do is tried again


class Refused(Exception):
    """A business error: `name` is what the saga's Retry and Catch rules match on."""

    def __init__(self, name, cause, retryable=False):
        super().__init__(cause)
        self.name, self.retryable = name, retryable


class Unreadable(Exception):
    """A command that no repetition makes readable."""


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
        # Without the stream this fails too: no coordinator has ever started here, and `offer` waits.
        await js.add_consumer(STREAM, config)
    return await js.pull_subscribe_bind(task, STREAM)


async def keep_alive(message):
    while True:
        await asyncio.sleep(ACK_WAIT / 3)
        await message.in_progress()


async def unpack(js, message):
    """The body of a command, wherever it stands."""
    name = (message.headers or {}).get("Dirigent-Payload")
    if not name:
        return message.data
    try:
        return (await (await js.object_store(PAYLOADS)).get(name)).data
    except (ObjectDeletedError, ObjectNotFoundError):
        raise Unreadable(f"the payload {name} is not in the bucket {PAYLOADS}")


async def read(js, message):
    body = await unpack(js, message)
    try:
        command = dict(msgpack.unpackb(body))
    except Exception as error:
        raise Unreadable(f"it is not a map in MessagePack: {error!r}")
    if command.get("v") != 1:
        raise Unreadable(f"its format has version {command.get('v')}, and this worker reads version 1")
    if missing := {"command", "attempt", "input", "reply_to"} - command.keys():
        raise Unreadable(f"it does not say its {', '.join(sorted(missing))}")
    return command


async def lay_aside(js, message, reason):
    """What nobody can read is kept for an operator, and not delivered again."""
    source = f"{message.metadata.stream}/{message.metadata.sequence.stream}"
    headers = {
        "Nats-Msg-Id": f"dead.{source}", "Dirigent-Dead-Subject": message.subject,
        "Dirigent-Dead-Source": source, "Dirigent-Dead-Reason": " ".join(reason.split()),
    }
    if name := (message.headers or {}).get("Dirigent-Payload"):
        headers["Dirigent-Payload"] = name
    await js.publish("dirigent.dead.command", message.data, headers=headers)
    await message.term()


async def pack(js, headers, body):
    """The body of a reply as it travels."""
    if len(body) <= INLINE:
        return body
    headers["Dirigent-Payload"] = hashlib.sha256(body).hexdigest()
    await (await js.object_store(PAYLOADS)).put(headers["Dirigent-Payload"], body)
    return b""


async def attempt(command, work):
    """What became of it, as the reply says it."""
    try:
        output = await work(command)
        size = len(json.dumps(output, separators=(",", ":"), ensure_ascii=False).encode())
        if size > (most := command.get("most_output") or MOST_OUTPUT):
            raise Refused("States.DataLimitExceeded", f"the output has {size} bytes, at most {most} are taken")
        return {"status": "succeeded", "output": output}
    except Refused as error:
        return {"status": "failed", "error": error.name, "cause": str(error), "retryable": error.retryable}
    except Exception as error:  # anything else may pass
        return {"status": "failed", "error": "States.TaskFailed", "cause": repr(error), "retryable": True}


async def execute(js, message, work):
    try:
        command = await read(js, message)
    except Unreadable as reason:
        return await lay_aside(js, message, str(reason))
    alive = asyncio.create_task(keep_alive(message))
    try:
        began = time.monotonic()
        result = await attempt(command, work)
        asked_at, ran = message.metadata.timestamp.timestamp(), time.monotonic() - began
        timing = {"asked_at": int(asked_at * 1e6), "ran_us": int(ran * 1e6)}
        reply = msgpack.packb({"v": 1, "command": command["command"], "worker": "python", "timing": timing, **result})
        headers = {"Nats-Msg-Id": command["command"] + ".r"}
        if trace := (message.headers or {}).get("traceparent"):
            headers["traceparent"] = trace
        # The reply is stored before the command is acknowledged: a crash between the two repeats it.
        await js.publish(command["reply_to"], await pack(js, headers, reply), headers=headers)
    finally:
        # A command whose reply is not stored must go to another worker: nobody says any more that it goes on.
        alive.cancel()
    await message.ack()


async def offer(js, task, work, stop):
    """Whatever the broker cannot do now is tried again: a worker waits, it does not end."""
    subscription = None
    while not stop.is_set():
        try:
            subscription = subscription or await consumer(js, task)
            for message in await subscription.fetch(1, timeout=1):
                await execute(js, message, work)
        except nats.errors.TimeoutError:
            pass
        except nats.errors.Error as error:
            print(f"{task}: {error!r}; trying again", file=sys.stderr)
            await asyncio.sleep(PAUSE)


async def main():
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    connection = await nats.connect(url, max_reconnect_attempts=-1)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.gather(*(offer(connection.jetstream(), *task, stop) for task in TASKS.items()))
    await connection.close()


asyncio.run(main())
