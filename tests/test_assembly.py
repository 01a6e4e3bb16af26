import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_cases import CASES, outputs_stay, sums_in_dram, tables

from accel.assembly import from_text, to_text
from accel.errors import ScheduleError
from accel.gemm import Stage
from accel.program import INSTRUCTION, Program, Site, Tensor
from accel.program_file import to_bytes

LINES = to_text(outputs_stay().program()).split("\n")
FIRST_INSTRUCTION = next(number for number, line in enumerate(LINES) if line.startswith("0 "))


def refused(lines, problem):
    with pytest.raises(ScheduleError, match=f"^{re.escape(f'step.txt: {problem}')}$"):
        from_text("\n".join(lines), "step.txt")


def with_line(start, line):
    """The text's lines with the first that begins with `start` exchanged, and its number."""
    place = next(number for number, old in enumerate(LINES) if old.startswith(start))
    return [*LINES[:place], line, *LINES[place + 1 :]], place + 1


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_text_gives_back_the_program(case):
    program = case().program()
    text = to_text(program)
    assert from_text(text, "step.txt") == program
    assert to_text(from_text(text, "step.txt")) == text


def test_an_instruction_reads_as_the_contract_shows():
    text = to_text(sums_in_dram().program()).split("\n")
    begin = text.index(next(line for line in text if line.startswith("0 ")))
    compute = "2 COMPUTE FIRST mode=1 repeat=0 west=0 north=0 out=0 row=0 rows=4 col=0 cols=2 group=0 groups=4 words=4 site=0"
    assert text[begin : begin + 4] == [
        "0 LOAD view=0 repeat=0 west=0 row=0 rows=4 group=0 groups=4 words=16 bytes=128 site=0",
        "1 LOAD view=1 repeat=0 north=0 col=0 cols=2 group=0 groups=4 words=8 bytes=64 site=0 signals=COMPUTE",
        f"{compute} waits=LOAD signals=LOAD,STORE",
        "3 STORE view=4 repeat=0 out=0 row=0 rows=4 col=0 cols=2 words=4 bytes=32 site=0 waits=COMPUTE signals=LOAD",
    ]
    assert text[begin + 6].startswith("6 LOAD view=4 repeat=0 out=0 row=0 rows=4 col=0 cols=2 words=4 bytes=32 site=0")


@st.composite
def any_instructions(draw):
    """Instructions whose every field is any value of its width."""

    def value(name):
        most = 2 ** (8 * INSTRUCTION[name].itemsize) - 1
        return draw(st.one_of(st.just(0), st.integers(0, 6), st.integers(0, most), st.just(most)))

    count = draw(st.integers(0, 5))
    return np.array([tuple(value(name) for name in INSTRUCTION.names) for _ in range(count)], dtype=INSTRUCTION)


@settings(deadline=None)
@given(any_instructions())
def test_any_instructions_come_back(instructions):
    program = Program(tables(), instructions)
    again = from_text(to_text(program), "step.txt")
    assert to_bytes(again) == to_bytes(program)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_in_the_tables_comes_back(text):
    program = Program(tables(sites=(Site(layer="fc", stage=Stage.FORWARD, part=text),)), np.zeros(0, INSTRUCTION))
    again = from_text(to_text(program), "step.txt")
    assert again.tables == program.tables


def test_lines_for_people_are_left_out():
    lines = ["", "# a step", *(f"  {line}\r" for line in LINES), "# the end"]
    assert from_text("\n".join(lines), "step.txt") == outputs_stay().program()


def test_fields_come_in_any_order_and_0_need_not_be_written():
    lines, _ = with_line("9 ", "9 VECTOR waits=STORE FENCE signals=UPDATE kernel=1")
    assert from_text("\n".join(lines), "step.txt") == outputs_stay().program()


def test_what_has_no_name_stands_as_its_number():
    program = Program(tables(), np.zeros(1, INSTRUCTION))
    program.instructions[0] = (9, 0x89, 0xC1, 1 << 5, 0, 3, *[0] * 12)
    assert to_text(program).split("\n")[-2] == "0 9 FENCE 3 7 object=3 site=0 waits=LOAD,6,7 signals=UPDATE"
    assert from_text(to_text(program), "step.txt") == program


ENGINES = "LOAD, STORE, COMPUTE, PRUNE, VECTOR, UPDATE"
WORDS = "network, batch, arch, tensor, view, mode, kernel, update, site"
LOAD_FIELDS = "view, repeat, west, north, out, row, rows, col, cols, group, groups, words, bytes, site, waits, signals"
DEEP_MODE = 'mode {"dataflow":"OS","row_lanes":2,"keep":5,"group":4,"out_bits":16}'
BARE_UPDATE = 'update {"colour":1,"weight":0,"elems":1,"passes":1,"sore_groups":0}'


@pytest.mark.parametrize(
    ("start", "line", "problem"),
    [
        ("nmprog", "nmprog 2", "the first line must be 'nmprog 1', not 'nmprog 2'"),
        ("nmprog", "12 LOAD", "the first line must be 'nmprog 1', not '12 LOAD'"),
        ("tensor", "tensors {}", f"a line must begin with a number or one of {WORDS}, not 'tensors'"),
        ("batch", "batch 0", "batch must be at least 1, not 0"),
        ("batch", "batch 1.5", "batch must be an integer, not 1.5"),
        ("network", "network 5", "network must be a string, not 5"),
        ("network", 'network ""', "network must not be empty, not ''"),
        ("tensor", 'tensor {"name":"t0","address":0,"bytes":256}', "format is missing"),
        ("mode", "mode []", "mode must be a table of named fields, not []"),
        ("update", BARE_UPDATE, "bytes is missing; reads is missing; writes is missing; colour is not a known field"),
        ("site", 'site {"layer":"fc","stage":"XX","part":""}', "stage must be 'FF', 'BP', 'WU' or 'OPT', not 'XX'"),
        ("mode", DEEP_MODE, "modes[0].keep must be at most group (4), not 5"),
        ("1 ", "7 LOAD", "the instruction's number must be 1, not '7'"),
        ("1 ", "01 LOAD", "the instruction's number must be 1, not '01'"),
        ("1 ", "1", f"an engine must follow the instruction's number: one of {ENGINES}, not nothing"),
        ("1 ", "1 JUMP", f"the engine must be {ENGINES} or a whole number below 256, not 'JUMP'"),
        ("1 ", "1 LOAD QUICK", "a flag must be FENCE, FIRST, LAST or a whole number below 8, not 'QUICK'"),
        ("1 ", "1 LOAD FENCE FENCE", "FENCE must stand once, not again"),
        ("1 ", "1 LOAD row=1 row=2", "row must stand once, not again"),
        ("1 ", "1 LOAD row=4294967296", "row must be a whole number below 4294967296, not '4294967296'"),
        ("1 ", "1 LOAD row=-1", "row must be a whole number below 4294967296, not '-1'"),
        ("1 ", "1 LOAD row=0x10", "row must be a whole number below 4294967296, not '0x10'"),
        ("1 ", "1 LOAD row=", "row must be a whole number below 4294967296, not ''"),
        ("1 ", f"1 LOAD row={'9' * 5000}", f"row must be a whole number below 4294967296, not '{'9' * 37}...'"),
        ("1 ", "1 LOAD waits=LOAD,", f"waits must be {ENGINES} or a whole number below 8, not ''"),
        ("1 ", "1 LOAD mode=1", f"a field must be one of {LOAD_FIELDS}, not 'mode'"),
    ],
)
def test_a_line_with_a_problem_is_named(start, line, problem):
    lines, number = with_line(start, line)
    refused(lines, f"line {number}: {problem}")


def test_broken_json_is_named_by_its_line():
    lines, number = with_line("view", "view [")
    refused(
        lines,
        f"line {number}: view must be complete JSON, not broken at line 1 column 2 (Expecting value); export it again",
    )


def test_a_reference_in_the_tables_is_named_by_its_line():
    lines, number = with_line(
        "update", LINES[next(n for n, line in enumerate(LINES) if line.startswith("update"))].replace("[1,2]", "[1,9]")
    )
    refused(lines, f"line {number}: updates[0].reads must be less than the number of tensors (4), not 9")


def test_a_line_that_is_missing_or_doubled_is_named():
    for word in ("network", "batch", "arch"):
        place = next(number for number, line in enumerate(LINES) if line.startswith(word))
        refused([*LINES[:place], *LINES[place + 1 :]], f"a line {word!r} is missing")
        refused([*LINES, LINES[place]], f"line {len(LINES) + 1}: {word} must stand once, not again after line {place + 1}")
    refused([""], "a line 'network' is missing")


@settings(deadline=None)
@given(st.data())
def test_damaged_text_is_read_or_refused_in_one_line(data):
    text = "\n".join(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        at, cut = data.draw(st.integers(0, len(text))), data.draw(st.sampled_from((0, 1, 1, 5)))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + cut :]
    try:
        from_text(text, "step.txt")
    except ScheduleError as error:
        problem = str(error)
    else:
        problem = "step.txt: nothing"
    assert re.match(r"step\.txt: ", problem) is not None
    assert problem.isprintable(), repr(problem)


def test_tensors_stand_in_their_order():
    program = Program(tables(), np.zeros(0, INSTRUCTION))
    lines = [line for line in to_text(program).split("\n") if line.startswith("tensor ")]
    assert [Tensor.model_validate_json(line.removeprefix("tensor ")) for line in lines] == list(tables().tensors)
