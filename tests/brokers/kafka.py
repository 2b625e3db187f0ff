"""Ways to get a Kafka broker."""

import importlib.resources
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.brokers.broker import Broker, Host, Kind, NotHereError
from tests.brokers.container import Container, local_image
from tests.brokers.process import Process, free_port
from tests.brokers.versions import DOCKER, kafka_metadata_level, pinned

JARS = DOCKER.parent / "build" / "brokers" / "kafka" / "libs"
OLDEST_JAVA = 17

# Found by experiment with noida-db 0.2.3. On LogAppendTime topics only the last of several headers of one name is kept;
# a second member of a group that commits automatically never gets its share; unknown topics are made, not refused; a
# group of which a member was killed may refuse the others' commits for good; a duplicate is answered as if it had been
# stored, and any sequence number and epoch of a producer is taken; all topics have one id;
# there are no users.
EMBEDDED_LACKS = frozenset({
    "duplicate_headers", "killed_member", "producer_sequences", "raw_batches", "rebalance_with_auto_commit",
    "topic_ids", "unknown_topic_error", "users",
})  # fmt: skip


def address_given(_: Path) -> Broker:
    """Take the broker that the environment names."""
    address = os.environ.get("WATCHWORD_TEST_KAFKA")
    if not address:
        raise NotHereError("WATCHWORD_TEST_KAFKA is not set")
    try:
        level = kafka_metadata_level(address)
    except OSError as error:
        raise RuntimeError(f"WATCHWORD_TEST_KAFKA={address} does not answer: {error}") from error
    version = "a broker that does not tell its version" if level is None else f"Kafka of metadata.version level {level}"
    lacks = frozenset({"pause", "restart", "users"})
    return Broker(bus="kafka", kind="address given", address=address, version=version, lacks=lacks)


def container(_: Path, **settings: str) -> Broker:
    """Run Apache Kafka from the public image, or from the equivalent that docker/build.sh makes, with more settings."""
    release = pinned()
    image = local_image(release["KAFKA_IMAGE"], release["KAFKA_IMAGE_BUILT"])
    port = free_port()
    environment = _environment(port, listen="0.0.0.0:9092", controller=9093, internal=9094) | settings
    return _apache_kafka("container", Container(image, port=9092, published=port, environment=environment), port)


def jars(directory: Path, **settings: str) -> Broker:
    """Run Apache Kafka from its jars, which `docker/build.sh jars` fetches, with further settings."""
    java = shutil.which("java")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr if java else ""  # noqa: S603
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise NotHereError(f"no Java {OLDEST_JAVA} or later")
    if not JARS.is_dir():
        raise NotHereError("the jars are not here: run docker/build.sh jars")
    port = free_port()
    environment = _environment(port, listen=f"127.0.0.1:{port}", controller=free_port(), internal=free_port()) | {
        "KAFKA_LIBS": str(JARS),
        "KAFKA_LOG_DIRS": str(directory / "data"),
        "KAFKA_PROPERTIES_FILE": str(directory / "server.properties"),
        **settings,
    }
    command = [str(DOCKER / "kafka" / "run")]
    return _apache_kafka("process", Process(command, directory=directory, environment=environment), port)


def with_users(directory: Path, *users: str) -> Broker:
    """Run Apache Kafka, on which `admin` may do everything, and the others nothing yet; all passwords are "secret"."""
    logins = " ".join(f'user_{user}="secret"' for user in ("admin", *users))
    settings = {
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT",
        "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN",
        "KAFKA_LISTENER_NAME_CLIENT_PLAIN_SASL_JAAS_CONFIG": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {logins};"
        ),
        "KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "KAFKA_SUPER_USERS": "User:admin;User:ANONYMOUS",  # the broker itself has no login
    }
    reasons = []
    for way in (container, jars):
        try:
            return way(directory, **settings)
        except NotHereError as reason:
            reasons.append(str(reason))
    raise NotHereError("no Kafka with users: " + "; ".join(reasons))


def embedded(directory: Path) -> Broker:
    """Run noida-db, which speaks Kafka's protocol: enough for a try, no proof."""
    port = free_port()
    binary = str(importlib.resources.files("noida_db") / "noida-db")
    command = [binary, "start", "--data-dir", str(directory), "--only", "kafka", "--kafka-port", str(port)]
    host = Process(command, directory=directory)
    return Broker(
        bus="kafka",
        kind="embedded",
        address=f"127.0.0.1:{port}",
        host=host,
        ready_line="press Ctrl-C to stop",
        lacks=EMBEDDED_LACKS,
    ).started(lambda: _told(host, r"noida-db [\d.]+"))


def _apache_kafka(kind: Kind, host: Host, port: int) -> Broker:
    address = f"127.0.0.1:{port}"

    def tell() -> str:
        # The protocol tells no release number, so the broker's log does; asking shows that the address is the broker's.
        if kafka_metadata_level(address) is None:
            raise NotHereError(f"what answers at {address} is not Apache Kafka")
        return _told(host, r"Kafka version: [\d.]+").replace("Kafka version:", "Apache Kafka")

    return Broker(bus="kafka", kind=kind, address=address, host=host, ready_line="Kafka Server started").started(tell)


def _told(host: Host, pattern: str) -> str:
    found = re.search(pattern, host.log())
    return found[0] if found else "a broker that does not tell its version"


def _environment(port: int, *, listen: str, controller: int, internal: int) -> dict[str, str]:
    """Configure one KRaft node that starts quickly, in the terms of the apache/kafka image."""
    return {
        "KAFKA_HEAP_OPTS": "-Xmx512m",
        # Saves about a second of start-up; these brokers do not live long enough to profit from the second compiler.
        "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto",
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@localhost:{controller}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        # The broker also talks to itself (transaction markers), from where the published port may not be reachable.
        "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
        "KAFKA_LISTENERS": f"CLIENT://{listen},CONTROLLER://localhost:{controller},INTERNAL://localhost:{internal}",
        "KAFKA_ADVERTISED_LISTENERS": f"CLIENT://127.0.0.1:{port},INTERNAL://localhost:{internal}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "1",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    }
