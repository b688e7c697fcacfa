"""A client in another language: sends a command, reads an event, asks a query. See 08-foreign-client.rs.

Run with: python3 examples/foreign_client.py amqp://127.0.0.1:5672

It prints:

    event scales.weighed: parcel A-1, 700 g
    the heaviest so far: parcel A-1, 700 g
"""

import json
import os
import sys
import time

import pika

PATIENCE = 20  # seconds that an event or an answer may take
NAMESPACE = os.environ.get("POSTRIDER_NAMESPACE", "postrider")  # the word in front of every exchange


def send(channel, kind, key, body, **properties):
    """A message needs its routing key and its content type; all else is optional."""
    channel.basic_publish(
        exchange=f"{NAMESPACE}.{kind}",
        routing_key=key,
        body=json.dumps(body),
        properties=pika.BasicProperties(content_type="application/json", **properties),
        mandatory=True,  # an error instead of silence if nobody takes it
    )


def listen(channel, queue):
    """Everything that arrives in a queue from now on."""
    arrived = []
    channel.basic_consume(queue, lambda _, *message: arrived.append(message), auto_ack=True)
    return arrived


def wait_for(connection, arrived):
    """The next thing that arrives: where it was sent to, its properties, its body."""
    deadline = time.monotonic() + PATIENCE
    while not arrived:
        if time.monotonic() > deadline:
            sys.exit(f"nothing arrived within {PATIENCE} s; is the service running?")
        connection.process_data_events(time_limit=1)
    method, properties, body = arrived.pop(0)
    return method.routing_key, properties, json.loads(body)


def main(url):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()

    # An event comes to every queue that is bound to its key; `*` and `#` are wildcards.
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, f"{NAMESPACE}.event", "scales.*")
    events = listen(channel, queue)

    # A command goes to the one service that handles it.
    send(channel, "command", "scales.weigh", {"parcel": "A-1", "grams": 700})
    key, _, parcel = wait_for(connection, events)
    print(f"event {key}: parcel {parcel['parcel']}, {parcel['grams']} g")

    # An answer comes to the queue in `reply_to`. This one is RabbitMQ's own: nothing is declared, but it must be
    # listened to on the channel that asks, before it asks.
    answers = listen(channel, "amq.rabbitmq.reply-to")
    send(channel, "query", "scales.heaviest", None, reply_to="amq.rabbitmq.reply-to", correlation_id="question-1")
    _, properties, answer = wait_for(connection, answers)
    if properties.correlation_id != "question-1":
        sys.exit(f"this answers another question: {properties.correlation_id}")
    if (properties.headers or {}).get("postrider-status") == "error":
        sys.exit(f"the service says no: {answer['text']} ({answer['code']})")
    print(f"the heaviest so far: parcel {answer['parcel']}, {answer['grams']} g")

    send(channel, "command", "scales.close", None)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "amqp://127.0.0.1:5672")
