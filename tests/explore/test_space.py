"""What a space file may say, which points it describes, and what it says of a wrong one."""

import itertools
import re
from pathlib import Path

import pytest

from accel import explore, networks
from accel.errors import ConfigError
from accel.explore.formulas import value_of
from accel.explore.space import AMOUNTS, OBJECTIVES, PROPERTIES, Constraints, Range, Space, Work
from accel.presets import PRESETS, preset

DEVICES = "XCVU9P, XCK26, XCZU9EG"
GROUP = "[vary]\ngroup = [4]\n"
WORK = "[work]\nnetworks = {mlp = 1.0}\nbatch = 2\n"


def space_of(vary, rest=""):
    return Space.from_text(f'[arch]\nbase = "test"\n[vary]\n{vary}\n{rest}\n{WORK}', "space.toml")


def refused(text):
    with pytest.raises(ConfigError) as caught:
        Space.from_text(text, "space.toml")
    source, _, problems = str(caught.value).partition(": ")
    assert source == "space.toml"
    return problems.split("; ")


def test_points_are_the_product_of_the_fields_the_last_fastest():
    space = space_of('array_rows = [2, 4, 8]\nrow_lanes = [[1], [1, 2]]\ndataflows = [["OS"], ["WS"], ["OS", "WS"]]')
    expected = itertools.product((2, 4, 8), ((1,), (1, 2)), (("OS",), ("WS",), ("OS", "WS")))
    assert space.size == 18
    assert [tuple(space.point(index).values()) for index in range(space.size)] == list(expected)
    assert list(space.point(5)) == ["array_rows", "row_lanes", "dataflows"]


def test_a_huge_space_needs_no_list():
    space = space_of(
        "west_buffer_bytes = {from = 1, to = 90000, step = 1}\nnorth_buffer_bytes = {from = 1, to = 90000, step = 1}"
    )
    assert space.size == 90000**2
    assert space.point(space.size - 1) == {"west_buffer_bytes": 90000, "north_buffer_bytes": 90000}
    with pytest.raises(ConfigError, match=r"^index must be between 0 and 8099999999, not 8100000000$"):
        space.point(space.size)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("array_rows = {from = 4, to = 17, step = 4}", (4, 8, 12, 16)),
        ("array_rows = {from = 4, to = 64, points = 5, scale = 'log'}", (4, 8, 16, 32, 64)),
        ("array_rows = {from = 1, to = 4, points = 9}", (1, 2, 3, 4)),
        ("array_rows = {from = 1, to = 3, step = 0.5}", (1, 2, 3)),
        ("clock_hz = {from = 1e8, to = 4e8, points = 3, scale = 'log'}", (1e8, 2e8, 4e8)),
        ("dram_efficiency_frac = {from = 0.1, to = 0.7, step = 0.1}", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
        ("clock_hz = [100000000, 2e8]", (1e8, 2e8)),
    ],
)
def test_ranges_and_lists_give_values_of_the_type_of_their_field(text, values):
    (found,) = space_of(text).axes.values()
    assert found == pytest.approx(values)
    whole = text.startswith("array_rows")
    assert all(type(value) is (int if whole else float) for value in found)


@pytest.mark.parametrize("arch", PRESETS.values(), ids=PRESETS)
def test_properties_that_formulas_read_are_those_of_the_machine(arch):
    for name, formula in PROPERTIES.items():
        assert value_of(formula, arch.model_dump()) == getattr(arch, name)


def test_derived_fields_follow_each_other_whatever_their_order():
    space = space_of(
        "array_rows = [2, 8]",
        '[derive]\nvector_lanes = "dram_bytes_per_cycle / 3"\nsore_lanes = "max(1, array_cols // 4)"\n'
        'array_cols = "2 * array_rows"\n'
        'dram_bytes_per_second = "pes * 1e8"',
    )
    assert space.derived(space.point(1)) == {
        "vector_lanes": 42,  # of 42.67
        "sore_lanes": 4,
        "array_cols": 16,
        "dram_bytes_per_second": 1.28e10,
    }
    arch = space.arch(1)
    assert (arch.name, arch.array_rows, arch.array_cols, arch.vector_lanes) == ("test-1", 8, 16, 42)
    untouched = preset("test").replace(array_rows=8, **space.derived(space.point(1)))
    assert arch.replace(name="test", description=untouched.description) == untouched


def test_a_formula_without_a_value_is_refused_at_its_point():
    space = space_of("vector_latency_cycles = [0, 1]", '[derive]\nwuve_lanes = "4 / vector_latency_cycles"')
    assert space.arch(1).wuve_lanes == 4
    with pytest.raises(ConfigError, match=r"^wuve_lanes = '4 / vector_latency_cycles' has no value: division by zero$"):
        space.arch(0)


def test_properties_without_a_value_are_refused_only_where_they_follow_from_a_formula():
    broken = space_of("vector_latency_cycles = [0, 1]", '[derive]\nclock_hz = "0 * vector_latency_cycles"')
    with pytest.raises(ConfigError, match=r"^dram_bytes_per_cycle = .* has no value: float division by zero$"):
        broken.arch(0)
    whole = space_of("array_rows = [2, 4]", '[derive]\nvector_lanes = "min(pes, 8)"')
    assert [whole.arch(index).vector_lanes for index in (0, 1, 0)] == [8, 8, 8]
    assert [whole.derived(point) for point in ({"array_rows": 1}, {"array_rows": 2})] == [
        {"vector_lanes": 4},
        {"vector_lanes": 8},
    ]


def test_a_formula_is_worked_out_once_for_equal_numbers(monkeypatch):
    space, asked = space_of("array_rows = [2, 4]\nsore_lanes = [1, 2]", '[derive]\nvector_lanes = "array_rows * 2"'), []
    monkeypatch.setattr(
        "accel.explore.formulas.value_of", lambda formula, numbers: asked.append(formula) or value_of(formula, numbers)
    )
    assert [space.arch(index).vector_lanes for index in range(4)] == [4, 4, 8, 8]
    assert asked == 2 * ["array_rows * 2"]


def test_every_problem_of_a_file_is_reported_at_once():
    problems = refused(
        """
        surprise = 1
        [arch]
        base = "nothing"
        [vary]
        rows = [1]
        array_rows = [0, 2.5]
        array_cols = 4
        clock_hz = [1e8, 1e8]
        row_lanes = {from = 1, to = 2, step = 1}
        group = {from = 8, to = 4, step = 1}
        name = ["a"]
        [derive]
        vector_lanes = "rows * 2"
        sore_lanes = "import os"
        [constraints]
        fits = "spartan"
        max_pes = 0
        [work]
        networks = {none = 1.0, mlp = -1.0}
        methods = [{method = "magic"}, {method = "bdwp", pattern = "9"}]
        [objectives]
        names = ["time", "beauty", "edp"]
        """
    )
    assert problems == [
        f"arch.base: arch must be one of {', '.join(PRESETS)} or a TOML file, not 'nothing'",
        "vary.rows is not a numeric or list field of a machine",
        "vary.array_rows must be at least 1, not 0",
        "vary.array_rows must be an integer, not 2.5",
        "vary.array_cols must be a list of values or a range {from, to, step | points}, not 4",
        "vary.clock_hz must not repeat a value",
        "vary.row_lanes must be a list of lists, not a range",
        "vary.group: to must be above from (8), not 4",
        "vary.name is not a numeric or list field of a machine",
        f"derive.vector_lanes must read numeric fields of a machine or {', '.join(PROPERTIES)}, not rows",
        "derive.sore_lanes must be a formula of numbers, names, + - * / //, min() and max(), not 'import os'",
        f"constraints.fits must be one of {DEVICES}, not 'spartan'",
        "constraints.max_pes must be at least 1, not 0",
        f"work.networks.none: network must be one of {', '.join(networks.names())}, or a JSON file, not 'none'",
        "work.networks.mlp must be a finite weight above 0, not -1.0",
        "work.methods[0].method must be one of dense, bdwp, sr-ste, sdgp, bp-only, fully-sparse, not 'magic'",
        "work.methods[1].pattern: pattern must be two integers like 2:8, not '9'",
        f"objectives.names[1] must be one of {', '.join(OBJECTIVES)}, not 'beauty'",
        "surprise is not a known field",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[vary]\ngroup = [4]", "work is missing"),
        (WORK, "vary is missing"),
        (f"vary = 3\n{WORK}", "vary must be a table of named fields, not 3"),
        (f"{GROUP}[derive]\ngroup = '4'\n{WORK}", "derive.group must not be varied too"),
        (f"{GROUP}[derive]\narray_rows = 'pes / 2'\n{WORK}", "derive.array_rows must not follow from itself"),
        (
            f"{GROUP}[derive]\narray_rows = 'array_cols'\narray_cols = 'array_rows'\n{WORK}",
            "derive.array_rows must not follow from itself (with array_cols)",
        ),
        (f"{GROUP}[constraints]\nlut_frac = 0.5\n{WORK}", "constraints.lut_frac must stand with fits, a device, not alone"),
        (
            f"{GROUP}[constraints]\nmax_power_watts = 1.0\n{WORK}",
            "constraints.max_power_watts must stand with objectives.energy, a table of energies",
        ),
        (
            f"{GROUP}[constraints]\nmax_power_watts = 0.0\n{WORK}",
            "constraints.max_power_watts must be greater than 0.0, not 0.0",
        ),
        (f"{GROUP}[constraints]\nmax_west_link_bits = 0\n{WORK}", "constraints.max_west_link_bits must be at least 1, not 0"),
        (f"{GROUP}{WORK}optimizer = 'x'", "work.optimizer must be one of sgd, sgd-plain, adam, not 'x'"),
        (f"{GROUP}{WORK}methods = [{{method = 'dense'}}, {{method = 'dense'}}]", "work.methods must not repeat dense"),
        (f"[vary]\n{WORK}", "vary must have 1 or more entries, not {}"),
        (f"{GROUP}{WORK}[objectives]\nnames = ['time', 'edp']", "objectives.energy must name a table of energies for edp"),
        (
            f"{GROUP}{WORK}[objectives]\nnames = ['power_watts']",
            "objectives.energy must name a table of energies for power_watts",
        ),
        (f"{GROUP}{WORK}[objectives]\nnames = ['time', 'time']", "objectives.names must not repeat, not ['time', 'time']"),
        (f"{GROUP}{WORK}[objectives]\nenergy = 'no.toml'", "objectives.energy: no.toml does not exist"),
        (f"{GROUP}[work]\nnetworks = {{}}", "work.networks must have 1 or more entries, not {}"),
        (f"{GROUP}[work]\nnetworks = {{'no.json' = 1.0}}", "work.networks.no.json: no.json does not exist"),
    ],
)  # fmt: skip
def test_a_problem_names_its_field(text, problem):
    assert refused(text) == problem.split("; ")


def test_a_range_must_say_one_thing():
    for fields, problem in (
        ({"from": 1, "to": 2}, "must have either step or points"),
        ({"from": 1, "to": 2, "step": 1, "points": 2}, "must have either step or points"),
        ({"from": 1, "to": 2, "step": 1, "scale": "log"}, "scale must be linear with step; give points"),
        ({"from": 0, "to": 2, "points": 3, "scale": "log"}, "from must be above 0 on a log scale, not 0"),
        ({"from": 0.0, "to": float("inf"), "step": 1}, "from, to and step must be finite"),
        ({"from": 1, "to": 10**400, "points": 5, "scale": "log"}, "from, to and step must be finite"),
        ({"from": 0, "to": 10**9, "step": 1}, "step must leave 100000 or fewer values, not 1"),
    ):
        with pytest.raises(ValueError, match=re.escape(problem)):
            Range.model_validate(fields)


def test_the_digest_is_of_the_file_and_what_it_names(tmp_path):
    machine = tmp_path / "m.toml"
    text = f'[arch]\nbase = "{machine}"\n[vary]\narray_rows = [2, 4]\n{WORK}'
    digests = []
    for rows in (2, 2, 4):
        preset("test").replace(array_cols=rows).save(machine)
        digests.append(Space.from_text(text, "a").digest)
    assert digests[0] == digests[1] != digests[2]
    assert Space.from_text(text + "# more\n", "a").digest != digests[2]


def test_the_page_has_every_name_of_a_space_file_and_of_a_row():
    page = (Path(__file__).parents[2] / "docs" / "explore.md").read_text()
    named = {*Constraints.model_fields, *Work.model_fields, *OBJECTIVES, *AMOUNTS} - {"methods"}
    assert [name for name in named if not re.search(rf"`(\w+\.)?{name}`", page)] == []


def test_of_very_many_wrong_values_the_first_are_named():
    text = "[vary]\narray_rows = {from = 1, to = 2000, step = 1}\n[work]\nnetworks = {mlp = 1.0}\n"
    named = "; ".join(f"vary.array_rows must be at most 1024, not {value}" for value in range(1025, 1029))
    with pytest.raises(ConfigError, match=rf"^a: {named}; vary.array_rows has 972 more values of such kind$"):
        Space.from_text(text, "a")


def test_the_shipped_examples_are_spaces_with_machines_in_them():
    for path in (Path(explore.__file__).parent / "examples").glob("*.toml"):
        space = Space.load(path)
        assert space.arch(0).pes, path.name
        assert space.arch(space.size - 1).pes, path.name
