# SPDX-License-Identifier: Apache-2.0
"""Clients in JavaScript and in Python open one exact sum, and refuse the same lies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from secure_fl import wire

from ..vectors.test_vectors import load
from .conftest import CLIENT
from .mixed import NodeRefused, Round, World
from .test_conformance import runner

MakeWorld = Callable[[int, int], World]


@pytest.fixture
def make_world(tmp_path: Path, node: str) -> Iterator[MakeWorld]:
    made: list[World] = []

    def make(clients: int, word_bits: int) -> World:
        made.append(World(tmp_path, node, clients, word_bits))
        return made[-1]

    yield make
    for world in made:
        for process in world.processes:
            process.kill()


def with_field(data: bytes, field: int, value: wire.Value) -> bytes:
    tree = wire.decode(data)
    assert isinstance(tree, dict)
    return wire.encode({**tree, field: value})


def test_the_javascript_client_passes_the_vectors(node: str) -> None:
    ended = runner("--", node, str(CLIENT / "conformance.js"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # It says what it leaves out, and leaves out nothing else.
    *_, verdict = ended.stdout.splitlines()
    assert verdict == "conforms, but for what it skipped: aggregator, attached"


@pytest.mark.parametrize("word_bits", [8, 20, 32, 33, 64])
def test_one_sum_from_both_implementations(
    make_world: MakeWorld, word_bits: int
) -> None:
    """Two Node clients, first and in the middle, three in Python; one drops out."""
    world = make_world(5, word_bits)
    first, third = world.node_client(0), world.node_client(2)
    parties = {0: first, 2: third} | world.pythons(1, 3, 4)
    opened = Round(world.session, parties, silent_from={3: 3}).run()
    assert opened.survivors == (0, 1, 2, 4)
    assert [int(word) for word in opened.words] == world.plain_sum((0, 1, 2, 4))
    assert first.ended() == (0, "")
    assert third.ended() == (0, "")


def test_a_node_client_that_drops_out_is_taken_off_the_sum(
    make_world: MakeWorld,
) -> None:
    world = make_world(5, 32)
    dropping = world.node_client(1)
    parties = {1: dropping} | world.pythons(0, 2, 3, 4)
    opened = Round(world.session, parties, silent_from={1: 3}).run()
    assert opened.survivors == (0, 2, 3, 4)
    assert [int(word) for word in opened.words] == world.plain_sum((0, 2, 3, 4))
    # Its input ends before its round does: neither a success nor a fault.
    assert dropping.ended() == (2, "")


@pytest.mark.parametrize("lie", ["left out", "another root", "other dealers"])
def test_a_forged_statement_gets_no_signature(make_world: MakeWorld, lie: str) -> None:
    world = make_world(5, 32)
    deceived = world.node_client(4)
    parties = {4: deceived} | world.pythons(0, 1, 2, 3)

    def forge(step: int, client: int, message: bytes) -> bytes:
        if (step, client) != (4, 4):
            return message
        tree = wire.decode(message)
        assert isinstance(tree, dict)
        rows = tree[4]
        assert isinstance(rows, list)
        *others, mine = rows
        assert isinstance(mine, list)
        if lie == "left out":
            return with_field(message, 4, others)
        if lie == "another root":
            return with_field(message, 4, [*others, [4, b"x" * 32, *mine[2:]]])
        return with_field(message, 3, b"x" * 32)

    played = Round(world.session, parties, telling=forge)
    opened = played.run()
    # Everyone else agreed on the true one: the sum is still the sum of all five.
    assert [int(word) for word in opened.words] == world.plain_sum(range(5))
    step, refusal = played.refusals[4]
    assert (step, refusal.kind) == (4, "FaultyAggregator")
    # It ended, and the true statement finds nobody any more.
    assert deceived.ended() == (1, "")


def test_a_changed_box_is_the_aggregators_fault(make_world: MakeWorld) -> None:
    """It is not in the tree that its dealer signed: who carried it changed it."""
    world = make_world(5, 32)
    parties = {0: world.node_client(0)} | world.pythons(1, 2, 3, 4)

    def spoil(step: int, client: int, message: bytes) -> bytes:
        if (step, client) != (3, 0):
            return message
        tree = wire.decode(message)
        assert isinstance(tree, dict)
        rows = tree[2]
        assert isinstance(rows, list)
        row = rows[1]
        assert isinstance(row, list)
        box = row[2]
        assert isinstance(box, bytes)
        changed = [*row[:2], bytes([box[0] ^ 1]) + box[1:], *row[3:]]
        return with_field(message, 2, [rows[0], changed, *rows[2:]])

    played = Round(world.session, parties, telling=spoil)
    opened = played.run()
    assert opened.survivors == (1, 2, 3, 4)
    step, refusal = played.refusals[0]
    assert (step, refusal.kind) == (3, "FaultyAggregator")


def test_a_context_is_started_once(make_world: MakeWorld) -> None:
    """A second process of the same client is out of the context."""
    world = make_world(5, 32)
    assert world.node_client(0).begin()
    second = world.node_client(0)
    with pytest.raises(NodeRefused, match="out of that context") as caught:
        second.begin()
    assert caught.value.kind == "UsageError"
    assert second.ended() == (1, "")


def test_a_spent_vector_waits_for_a_proof(make_world: MakeWorld) -> None:
    """SPEC 7, across processes: only a signed omission frees the vector."""
    world = make_world(5, 32)

    class Late:
        """Sends its vector, but for the last message of step 3."""

        def __init__(self) -> None:
            self.node = world.node_client(0)

        def begin(self) -> list[bytes]:
            return self.node.begin()

        def answer(self, step: int, data: bytes) -> list[bytes]:
            sent = self.node.answer(step, data)
            return sent[:-1] if step == 3 else sent

    parties = {0: Late()} | world.pythons(1, 2, 3, 4)
    played = Round(world.session, parties)
    opened = played.run()
    assert opened.survivors == (1, 2, 3, 4)
    proof = {
        "statement": played.told[3].hex(),
        "signatures": played.told[4].hex(),
    }

    world.session = world.session_of(32, attempt=1)
    with pytest.raises(NodeRefused, match="spent in another context"):
        world.node_client(0).begin()
    # A statement with a signature less proves nothing.
    tree = wire.decode(played.told[4])
    assert isinstance(tree, dict)
    signatures = tree[2]
    assert isinstance(signatures, list)
    few = with_field(played.told[4], 2, signatures[:3])
    with pytest.raises(NodeRefused, match="3 signatures, 4 are needed"):
        world.node_client(0, proofs=[proof | {"signatures": few.hex()}]).begin()

    retrying = world.node_client(0, proofs=[proof])
    retried = {0: retrying} | world.pythons(1, 2, 3, 4)
    opened = Round(world.session, retried).run()
    assert [int(word) for word in opened.words] == world.plain_sum(range(5))


def test_an_identity_may_be_a_pem_file(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(5, 32)
    file = tmp_path / "bank-0.pem"
    pem = world.keys[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem)
    assert world.node_client(0, identity_file=str(file)).begin()
    # Somebody else's identity starts nothing.
    with pytest.raises(NodeRefused, match="not that of bank-1"):
        world.node_client(1, identity_file=str(file)).begin()


@pytest.mark.parametrize("line", ["", "no json", "{}", '{"session": {}}'])
def test_a_set_up_that_is_none_is_said_so(node: str, line: str) -> None:
    ended = subprocess.run(
        [node, str(CLIENT / "client_main.js")],
        input=line + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr == ""
    assert '"error":"UsageError"' in ended.stdout


SPENT_FIRST = """
import { start } from "./client.js";
import { Context } from "./context.js";

const { session, client, identity, operations } = JSON.parse(process.argv[1]);
const bytes = (text) => Buffer.from(text, "hex");
const journal = { started() {}, spent() {} };
const [first, second] = operations;
const [, state] = start(
  new Context(session), client, bytes(identity), bytes(first.random), journal,
);
for (const message of [Buffer.from("ff", "hex"), bytes(second.message)]) {
  try {
    state.cohort(message, bytes(second.random));
    console.log("answered");
  } catch (error) {
    console.log(error.kind);
  }
}
"""


def test_a_state_is_spent_before_its_message_is_read(node: str) -> None:
    """SPEC 1: after a message that does not parse, the true one gets no answer."""
    given = next(c["input"] for c in load("client") if "error" not in c["expect"])
    ended = subprocess.run(
        [node, "--input-type=module", "-e", SPENT_FIRST, json.dumps(given)],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert ended.stdout.split() == ["ProtocolError", "UsageError"]


SPENT_TWICE = """
import { Journal } from "./journal.js";

const [folder, text] = process.argv.slice(1);
const { session, client } = JSON.parse(text);
const next = { ...session, attempt: session.attempt + 1 };
const journals = [session, next].map((s) => new Journal(folder, s, client, ["1"], []));
// Both contexts are begun before either is asked for the vector.
journals.forEach((journal) => journal.started());
for (const journal of journals) {
  try {
    journal.spent();
    console.log("leaves");
  } catch (error) {
    console.log(error.kind);
  }
}
"""


def test_a_vector_leaves_in_one_of_two_contexts(node: str, tmp_path: Path) -> None:
    """SPEC 7, where two attempts overlap."""
    given = next(c["input"] for c in load("client") if "error" not in c["expect"])
    script = [node, "--input-type=module", "-e", SPENT_TWICE]
    ended = subprocess.run(
        [*script, str(tmp_path), json.dumps(given)],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert ended.stdout.split() == ["leaves", "UsageError"]
