#!/usr/bin/env python3
"""A runner that answers in capitals: the whole protocol of runtime/RUNNERS.md, with Python's standard library alone.

In the node's configuration:

    [runners.capitals]
    command = ["python3", "runtime/examples/runner.py"]

and in a model's card: "runner": "capitals", "settings": {"seconds_per_token": "0.05"}.
"""

import json
import os
import sys
import threading
import time

VERSION = 1
TASKS = 4  # at the same time, each in a thread of its own

# Only messages go to standard output. What libraries print goes to standard error, whose end the node reports.
messages = sys.stdout
sys.stdout = sys.stderr
one_line_at_a_time = threading.Lock()


def say(kind, **fields):
    """Writes one message, whole and at once."""
    with one_line_at_a_time:
        messages.write(json.dumps({"type": kind, **fields}) + "\n")
        messages.flush()


def words_of(request):
    """The words of the user's last message. Content is a text, or a list of parts."""
    content = [message["content"] for message in request["messages"] if message["role"] == "user"][-1]
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content)
    return content.split()


def work(task, most, request, rank, pause, cancelled):
    """Does one task. An error ends the task, not the runner."""
    say("started", task=task)
    try:
        words = words_of(request)
    except (KeyError, IndexError, TypeError):
        return say("failed", task=task, reason="the request has no message of a user", request=True)
    began, clock = time.time(), time.monotonic()
    said = 0
    for word in words[:most]:
        # Returns at once, with true, if the task is cancelled: then nothing more is said of it.
        if cancelled.wait(pause):
            return None
        # All ranks work; the first one talks.
        if rank == 0:
            say("token", task=task, text=(" " if said else "") + word.upper())
        said += 1
    micros = int((time.monotonic() - clock) * 1e6)
    say("trace", task=task, spans=[{"name": "decode", "began": int(began * 1000), "micros": micros}])
    stop = "length" if said < len(words) else "stop"
    usage = {"prompt_tokens": len(words), "completion_tokens": said}
    return say("done", task=task, stop=stop, usage=usage)


def main():
    hello = json.loads(sys.stdin.readline() or "null")
    if not hello or hello.get("type") != "hello":
        sys.exit("this program is started by a node, which greets it first")
    say("hello", version=VERSION, tasks=TASKS)
    if hello["version"] != VERSION:
        sys.exit(f"it speaks version {VERSION}, and was greeted in version {hello['version']}")
    pause = float(hello["card"]["settings"].get("seconds_per_token", "0"))

    running = {}  # what cancels each task, and its thread
    for line in sys.stdin:
        message = json.loads(line)
        kind = message["type"]
        if kind == "connect":
            say("connected")
        elif kind == "load":
            say("loading", percent=50)
            say("loaded")
        elif kind == "warm_up":
            say("ready")
        elif kind == "task":
            if "chat" not in message["kind"]:
                say("failed", task=message["task"], reason="this runner only chats", request=True)
                continue
            running = {task: (flag, thread) for task, (flag, thread) in running.items() if thread.is_alive()}
            task, most, cancelled = message["task"], message["kind"]["chat"]["max_tokens"], threading.Event()
            arguments = (task, most, message["input"], hello["rank"], pause, cancelled)
            thread = threading.Thread(target=work, args=arguments)
            running[task] = (cancelled, thread)
            thread.start()
        elif kind == "cancel":
            if message["task"] in running:
                running[message["task"]][0].set()
        elif kind == "shut_down":
            for _, thread in running.values():
                thread.join()
            return
    # The end of standard input, untold: the node is gone. Nobody waits for what is under way.
    os._exit(0)


if __name__ == "__main__":
    main()
