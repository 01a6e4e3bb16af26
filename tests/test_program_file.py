import json
import random
import re
import struct
import zlib

import numpy as np
import pytest
from program_cases import ARCH, CASES, OUT_VIEW, outputs_stay, tables
from pydantic import ValidationError

from accel.dataflow.verifier import verify
from accel.errors import AccelError, ScheduleError
from accel.program import INSTRUCTION, Engine, Kernel, Mode, Program, Tables, Tensor, View, describe_tables, used_fields
from accel.program_file import from_bytes, load, save, to_bytes

HEADER = struct.Struct("<6sHIIII")


def says(problem):
    """A refusal with exactly these words."""
    return pytest.raises(ScheduleError, match=f"^{re.escape(problem)}$")


def refused(data, problem):
    with says(problem):
        from_bytes(data, "step.nmp")


def with_header(data, **changes):
    """The contents with other fields in the header; the CRC is made to fit unless it is one of them."""
    names = ("magic", "version", "tables", "count", "crc", "zero")
    fields = dict(zip(names, HEADER.unpack(data[:24]), strict=True)) | {"crc": zlib.crc32(data[24:])} | changes
    return HEADER.pack(*fields.values()) + data[24:]


def with_tables(change):
    """The contents of a file whose tables were changed as JSON, with a CRC that fits."""
    data = to_bytes(outputs_stay().program())
    length = HEADER.unpack(data[:24])[2]
    fields = json.loads(data[24 : 24 + length])
    text = json.dumps(change(fields) or fields).encode()
    text += b" " * (-(24 + len(text)) % 64)
    return with_header(data[:24] + text + data[24 + length :], tables=len(text))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_file_gives_back_the_program(case, tmp_path):
    program = case().program()
    save(program, tmp_path / "step.nmp")
    assert load(tmp_path / "step.nmp") == program


def test_equal_programs_have_equal_bytes():
    assert to_bytes(outputs_stay().program()) == to_bytes(outputs_stay().program())


def test_instructions_are_64_bytes_and_start_at_a_multiple_of_64():
    assert INSTRUCTION.itemsize == 64
    program = outputs_stay().program()
    data = to_bytes(program)
    magic, version, length, count, crc, zero = HEADER.unpack(data[:24])
    assert (magic, version, count, crc, zero) == (b"nmprog", 1, 11, zlib.crc32(data[24:]), 0)
    assert (24 + length) % 64 == 0
    assert data[24 + length :] == program.instructions.tobytes()
    assert data[24 : 24 + length].decode().startswith('{"network":"hand-made","batch":1,"arch":{"name":"tiny"')


def test_fields_stand_where_the_contract_says():
    places = {name: INSTRUCTION.fields[name][1] for name in INSTRUCTION.names}
    assert places == {
        "opcode": 0, "flags": 1, "waits": 2, "signals": 3, "site": 4, "object": 8, "repeat": 12, "west": 16, "north": 20,
        "out": 24, "row": 28, "rows": 32, "col": 36, "cols": 40, "group": 44, "groups": 48, "words": 52, "bytes": 56,
    }  # fmt: skip


def test_loaded_instructions_can_be_changed(tmp_path):
    save(outputs_stay().program(), tmp_path / "step.nmp")
    program = load(tmp_path / "step.nmp")
    program.instructions["site"][0] = 1
    assert program != outputs_stay().program()


def test_programs_differ_by_tables_and_by_instructions():
    program = outputs_stay().program()
    assert program != Program(tables(batch=2), program.instructions)
    assert program != Program(program.tables, program.instructions[:-1])
    assert program != "program"


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "step.nmp"
    path.write_bytes(b"old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with says(f"{path} cannot be written: No space left on device; choose another output"):
        save(outputs_stay().program(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    program = outputs_stay().program()
    with says(f"{tmp_path} must be a file, not a directory"):
        save(program, tmp_path)
    missing = tmp_path / "missing" / "step.nmp"
    with says(f"{missing} cannot be written: No such file or directory; choose another output"):
        save(program, missing)
    with says("step\0.nmp cannot be written: embedded null byte; choose another output"):
        save(program, "step\0.nmp")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, problem in ((tmp_path, "must be a file, not a directory"), (tmp_path / "none.nmp", "does not exist")):
        with says(f"{path} {problem}"):
            load(path)
    with says("step\0.nmp cannot be read: embedded null byte"):
        load("step\0.nmp")


def test_a_header_that_promises_too_much_is_refused_before_more_is_read(tmp_path):
    path = tmp_path / "step.nmp"
    path.write_bytes(HEADER.pack(b"nmprog", 1, 40, 2**32 - 1, 0, 0) + bytes(80))
    most = 64 + 64 * (2**32 - 1)
    with says(f"{path} must be {most} bytes long, as its header says, not 104; the file is damaged: compile it again"):
        load(path)


def test_damaged_headers_are_refused():
    data = to_bytes(outputs_stay().program())
    size, length = len(data), HEADER.unpack(data[:24])[2]
    refused(b"", "step.nmp must be a program file of 24 bytes or more, not 0")
    refused(data[:23], "step.nmp must be a program file of 24 bytes or more, not 23")
    refused(b"NMPROG" + data[6:], "step.nmp must be a program file, which begins with b'nmprog', not with b'NMPROG'")
    refused(with_header(data, version=2), "step.nmp: version must be 1, not 2; compile the program again")
    refused(with_header(data, zero=5), "step.nmp: bytes 20 to 23 must be 0, not 5")
    refused(
        with_header(data, tables=length + 1), f"step.nmp: the tables must end at a multiple of 64 bytes, not at {length + 25}"
    )
    damaged = "as its header says, not {}; the file is damaged: compile it again"
    refused(with_header(data, count=12), f"step.nmp must be {size + 64} bytes long, {damaged.format(size)}")
    refused(data[:-1], f"step.nmp must be {size} bytes long, {damaged.format(size - 1)}")
    refused(data + b" ", f"step.nmp must be {size} bytes long, {damaged.format(size + 1)}")
    refused(
        with_header(data, crc=1),
        f"step.nmp must have the CRC-32 that its header says, 0x00000001, not {zlib.crc32(data[24:]):#010x}; "
        "the file is damaged: compile it again",
    )


def test_tables_that_are_no_json_are_refused():
    data = to_bytes(outputs_stay().program())
    length = HEADER.unpack(data[:24])[2]
    refused(
        with_header(data[:24] + b"[" * 10 + b"x" * (length - 10) + data[24 + length :]),
        "step.nmp: tables must be complete JSON, not broken at line 1 column 11 (Expecting value); export it again",
    )
    broken = with_header(data[:30] + b"\xff" + data[31:])
    refused(broken, "step.nmp: tables must be UTF-8 text, not broken at byte 30")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda fields: [[]], "the file must be a table of named fields, not [[]]"),
        (lambda fields: fields.pop("modes") and None, "modes is missing"),
        (lambda fields: fields.update(colour=1), "colour is not a known field"),
        (lambda fields: fields["views"][3].update(rows=-1), "views[3].rows must be at least 1, not -1"),
        (lambda fields: fields["views"][0].update(tensors=[]), "views[0].tensors must have 1 or more entries, not []"),
        (lambda fields: fields["views"][0].update(tensors=[1.5]), "views[0].tensors[0] must be an integer, not 1.5"),
        (lambda fields: fields["tensors"][1].update(name=""), "tensors[1].name must not be empty, not ''"),
        (lambda fields: fields["sites"][0].update(stage="XX"), "sites[0].stage must be 'FF', 'BP', 'WU' or 'OPT', not 'XX'"),
        (lambda fields: fields["arch"].update(group=3), "arch.group must be a power of 2, not 3"),
        (
            lambda fields: fields["views"][2].update(tensors=[4]),
            "views[2].tensors must be less than the number of tensors (4), not 4",
        ),
    ],
)
def test_tables_with_a_problem_are_refused_by_field(change, problem):
    refused(with_tables(change), f"step.nmp: {problem}")


def test_a_field_with_an_odd_name_is_shown_in_one_line():
    refused(with_tables(lambda fields: fields.update({"a\nb\x7f": 1})), "step.nmp: a\\nb\\x7f is not a known field")


VIEW = {"tensors": (0,), "side": "west", "rows": 4, "groups": 8, "group_bits": 64, "distinct": 4}
OUT = {"tensors": (0,), "side": "out", "rows": 4, "cols": 2, "elem_bits": 16}
MODE = {"dataflow": "OS", "row_lanes": 1, "keep": 4, "group": 4, "out_bits": 16}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"views": (View(**{**VIEW, "groups": 0}),)}, "views[0].groups must be at least 1 on side west, not 0"),
        ({"views": (View(**{**VIEW, "distinct": 0}),)}, "views[0].distinct must be at least 1 on side west, not 0"),
        ({"views": (View(**{**VIEW, "group_bits": 0}),)}, "views[0].group_bits must be at least 1 on side west, not 0"),
        ({"views": (View(**{**OUT, "cols": 0}),)}, "views[0].cols must be at least 1 on side out, not 0"),
        ({"views": (View(**{**OUT, "elem_bits": 8}),)}, "views[0].elem_bits must be 16 or 32 on side out, not 8"),
        (
            {"views": (View(**{**OUT, "rows": 2**31, "pad_cols": 2**31}),)},
            f"views[0].rows must be few enough for less than 2**63 bits, not {2**31}",
        ),
        (
            {"views": (View(**VIEW, row_bits=2**61),)},
            "views[0].rows must be few enough for less than 2**63 bits, not 4",
        ),
        (
            {"views": (View(**VIEW, prune_keep=1, prune_group=4),)},
            "views[0].prune_keep must be 0 on side west, not 1",
        ),
        (
            {"views": (View(**{**VIEW, "side": "north"}, prune_keep=1, prune_group=3),)},
            "views[0].prune_group must divide the group of tiny (4), not 3",
        ),
        (
            {"views": (View(**{**VIEW, "side": "north"}, prune_keep=5, prune_group=4),)},
            "views[0].prune_keep must be at most prune_group (4), not 5",
        ),
        ({"modes": (Mode(**{**MODE, "row_lanes": 3}),)}, "modes[0].row_lanes must be one of 1, 2 of tiny, not 3"),
        ({"modes": (Mode(**{**MODE, "keep": 5}),)}, "modes[0].keep must be at most group (4), not 5"),
        ({"modes": (Mode(**{**MODE, "group": 8}),)}, "modes[0].group must be at most the group of tiny (4), not 8"),
        (
            {"modes": (Mode(**{**MODE, "dataflow": "WS"}),), "arch": ARCH.replace(dataflows=("OS",))},
            "modes[0].dataflow must be one of OS of tiny, not WS",
        ),
        (
            {"kernels": (Kernel(op="relu", lane_ops=1, bytes=4, transfers=0, reads=(), writes=(), tile=True),)},
            "kernels[0].bytes must be 0 where tile is true, not 4",
        ),
        (
            {"kernels": (Kernel(op="relu", lane_ops=1, bytes=0, transfers=0, reads=(7,), writes=()),)},
            "kernels[0].reads must be less than the number of tensors (4), not 7",
        ),
        (
            {"updates": (tables().updates[0].model_copy(update={"weight": 9}),)},
            "updates[0].weight must be less than the number of tensors (4), not 9",
        ),
        (
            {"tensors": (Tensor(name="t", address=0, bytes=1, format="fp16"),) * 65537},
            "tensors must have 65536 or fewer entries, not ",
        ),
    ],
)
def test_tables_that_contradict_themselves_are_refused(changes, problem):
    with pytest.raises(ValidationError) as caught:
        tables(**changes)
    found = describe_tables(caught.value)
    assert len(found) == 1
    assert found[0] == problem or (problem.endswith(" ") and found[0].startswith(problem))


def test_instructions_of_another_kind_are_refused():
    with says("instructions must be a list of INSTRUCTION, not 1-dimensional int64"):
        Program(tables(), np.zeros(3, dtype=np.int64))


def test_entries_of_a_machine_group_are_those_of_its_patterns():
    arch = ARCH.replace(group=8)
    view = View(**{**VIEW, "side": "north"}, prune_keep=2, prune_group=4)
    assert view.entry_bits(arch) == 2 * 2 * (16 + 2)
    assert View(**VIEW).entry_bits(arch) == 0


def test_used_fields_are_those_of_the_contracts_table():
    assert used_fields(Engine.LOAD, "north") == ("repeat", "north", "col", "cols", "group", "groups", "words", "bytes")
    assert used_fields(Engine.STORE) == ("repeat", "out", "row", "rows", "col", "cols", "words", "bytes")
    assert used_fields(Engine.VECTOR, tile=True) == ("repeat", "out", "row", "rows", "col", "cols", "words")
    assert used_fields(Engine.VECTOR) == used_fields(Engine.UPDATE) == ()


def test_buffers_are_counted_in_words():
    assert tables().buffer_words == (64, 64, 64)
    assert tables(arch=ARCH.replace(output_buffer_bytes=130)).buffer_words == (64, 64, 16)


def mutate_bytes(data, rng):
    """A file with flipped, missing and additional bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed))
        kind = rng.choice(("flip", "flip", "set", "cut", "insert", "field"))
        if kind == "flip":
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == "set":
            changed[at] = rng.choice((0, 1, 255, rng.randrange(256)))
        elif kind == "cut":
            del changed[at : at + rng.choice((1, 4, 64, 1000))]
            changed = changed or bytearray(1)
        elif kind == "insert":
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif at + 8 < len(changed):
            struct.pack_into("<I", changed, at // 4 * 4, rng.choice((0, 1, 2, 64, 2**31, 2**32 - 1)))
    return bytes(changed)


def mutate_tables(fields, rng):
    """Tables with a value somewhere changed, moved or left out."""
    place = fields
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and rng.random() < 0.9:
            place = place[key]
            continue
        values = (0, 1, -1, 3, 2**31, 2**63 - 1, 2**63, 10**400, 1.5, None, True, "", "OS", "west", "\u2028", [], [0], {})
        if rng.random() < 0.1:
            del place[key]
        else:
            place[key] = rng.choice(values)
        return


def outcome(data):
    """ "refused" or "accepted", by the reader and the verifier; any other exception is an error."""
    try:
        verify(from_bytes(data, "step.nmp"), "step.nmp")
    except AccelError as error:
        text = str(error)
        return "refused" if text.startswith("step.nmp") and text.isprintable() else f"said {text!r}"
    return "accepted"


@pytest.mark.parametrize("fix_crc", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_in_one_line(seed, fix_crc):
    rng = random.Random(seed)
    cases = [to_bytes(case().program()) for case in CASES.values()]
    outcomes = []
    for number in range(100):
        data = mutate_bytes(cases[number % len(cases)], rng)
        if fix_crc and len(data) >= 24:
            length = struct.unpack_from("<I", data, 8)[0]
            count = max(len(data) - 24 - length, 0) // 64
            data = with_header(data[: 24 + length + 64 * count], magic=b"nmprog", version=1, count=count, zero=0)
        outcomes.append(outcome(data))
    assert set(outcomes) <= {"refused", "accepted"}
    assert outcomes.count("refused") >= (50 if fix_crc else 95)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_tables_are_refused_in_one_line_or_make_no_difference(seed):
    rng = random.Random(seed)
    outcomes = [outcome(with_tables(lambda fields: mutate_tables(fields, rng))) for _ in range(100)]
    assert set(outcomes) == {"refused", "accepted"}


def test_a_file_with_any_instruction_is_accepted_or_refused():
    rng = np.random.default_rng(3)
    outcomes = []
    for _ in range(200):
        program = outputs_stay().program()
        records = program.instructions.view(np.uint8).reshape(-1, 64)
        records[rng.integers(len(records)), rng.integers(64, size=3)] = rng.integers(256, size=3)
        outcomes.append(outcome(to_bytes(program)))
    assert set(outcomes) <= {"refused", "accepted"}
    assert outcomes.count("refused") > 150


def test_out_views_are_of_the_second_tensor():
    assert tables().views[OUT_VIEW].tensors == (2,)
    assert isinstance(tables(), Tables)
