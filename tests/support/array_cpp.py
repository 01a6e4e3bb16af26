"""Runs of the array in Verilator under a C++ main: for streams too long for a bench in Python."""

import math
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from rtl_build import FLAGS, compile_cpp

from accel.rtl.array import COUNTERS, SystolicArray
from accel.rtl.command import command_fields, command_layout
from accel.rtl.emit import emit

MAIN = r"""
#include "V@top@.h"
#include "verilated.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Port { CData* valid; CData* ready; uint8_t* payload; size_t bytes, stride; };
struct Source { std::vector<uint8_t> words; size_t count = 0, next = 0; };

static FILE* in;
static uint64_t number() { uint64_t n; if (fread(&n, 8, 1, in) != 1) exit(3); return n; }
static uint64_t state = 88172645463325252ull;
static bool chance(uint64_t of_256) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return (state >> 32) % 256 < of_256; }
static void show(const Port& p, const uint8_t* word) { memcpy(p.payload, word, p.bytes < p.stride ? p.bytes : p.stride); }

int main(int argc, char** argv) {
    auto* dut = new V@top@;
    in = fopen(argv[1], "rb");
    FILE* out = fopen(argv[2], "wb");
    const uint64_t limit = strtoull(argv[3], nullptr, 10);
    std::vector<Port> sources = {@sources@}, sinks = {@sinks@};
    auto tick = [&] { dut->clk = 1; dut->eval(); dut->clk = 0; dut->eval(); };
    dut->rst = 1; tick(); tick(); dut->rst = 0; dut->eval();
    uint64_t total = 0;
    for (uint64_t runs = number(), run = 0; run < runs; ++run) {
        uint64_t stall = number();
        std::vector<Source> streams(sources.size());
        for (size_t s = 0; s < sources.size(); ++s) {
            streams[s].count = number();
            streams[s].words.resize(streams[s].count * sources[s].stride);
            if (fread(streams[s].words.data(), 1, streams[s].words.size(), in) != streams[s].words.size()) return 3;
        }
        std::vector<std::vector<uint32_t>> results(sinks.size());
        uint64_t cycles = 0;
        for (bool taken = false; ; ++cycles) {
            for (size_t s = 0; s < sources.size(); ++s) {
                auto& stream = streams[s]; auto& port = sources[s];
                bool offers = stream.next < stream.count && (*port.valid || !chance(stall));
                if (offers && !*port.valid) show(port, stream.words.data() + stream.next * port.stride);
                *port.valid = offers;
            }
            for (auto& port : sinks) *port.ready = !chance(stall);
            dut->eval();
            if (taken && dut->i_command__ready && streams[0].next == streams[0].count) {
                bool empty = true;
                for (auto& port : sinks) empty = empty && !*port.valid;
                if (empty) break;
            }
            for (size_t s = 0; s < sinks.size(); ++s)
                if (*sinks[s].valid && *sinks[s].ready) { uint32_t word; memcpy(&word, sinks[s].payload, 4); results[s].push_back(word); }
            std::vector<bool> moves(sources.size());
            for (size_t s = 0; s < sources.size(); ++s) moves[s] = *sources[s].valid && *sources[s].ready;
            taken = taken || moves[0];
            tick();
            for (size_t s = 0; s < sources.size(); ++s) if (moves[s]) { ++streams[s].next; *sources[s].valid = 0; }
            if (cycles > limit) { fprintf(stderr, "run %llu hangs\n", (unsigned long long)run); return 2; }
        }
        total += cycles;
        for (uint64_t value : {@counters@}) fwrite(&value, 8, 1, out);
        for (auto& words : results) {
            uint64_t count = words.size();
            fwrite(&count, 8, 1, out);
            fwrite(words.data(), 4, count, out);
        }
    }
    fwrite(&total, 8, 1, out);
    return fclose(out);
}
"""


def run_array(parameters, runs, *, stall_frac=0.0, limit=10_000_000, flags=FLAGS):
    """Run [(run, stimulus)] one after the other; return for each its counters and the words of each output, and all cycles."""
    top = SystolicArray(parameters)
    program = compile_cpp(emit(top), _main(parameters), (*flags, "-CFLAGS", "-std=c++17"), no_inline=("uspe",))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        with source.open("wb") as file:
            file.write(np.uint64(len(runs)).tobytes())
            for run, streams in runs:
                _write(file, parameters, run, streams, round(256 * stall_frac))
        subprocess.run([program, source, target, str(limit)], check=True)
        return _read(np.fromfile(target, np.uint8), parameters, len(runs))


def check_runs(parameters, runs, cycles, **options):
    """Run [(run, stimulus)] and compare every output and counter; `cycles` are those of each run."""
    results, _ = run_array(parameters, runs, **options)
    for (run, streams), expected, (counters, out) in zip(runs, cycles, results, strict=True):
        wanted = {"cycles": expected, **streams.counters}
        assert {name: counters[name] for name in wanted} == wanted, f"counters of {run} on {parameters}"
        for number, (got, words) in enumerate(zip(out, streams.out, strict=True)):
            assert np.array_equal(got, words), f"output {number} of {run} on {parameters}"
    return results


def _main(parameters):
    west, north = [f"i_west__{row}" for row in range(parameters.rows)], [f"i_north__{col}" for col in range(parameters.cols)]
    sinks = [f"o_out__{number}" for number in range(parameters.cols * parameters.drain_lanes)]
    strides = dict.fromkeys(west, 2 * parameters.group) | dict.fromkeys(north, 4)
    strides["i_command"] = _command_words(parameters) * 4

    def port(name):
        stride = -(-strides.get(name, 4) // 4) * 4
        payload = f"dut->{name}__payload"
        return f"{{&dut->{name}__valid, &dut->{name}__ready, (uint8_t*)&{payload}, sizeof {payload}, {stride}}}"

    text = MAIN.replace("@top@", SystolicArray.verilog_name)
    text = text.replace("@sources@", ", ".join(map(port, ["i_command", *west, *north])))
    text = text.replace("@sinks@", ", ".join(map(port, sinks)))
    text = text.replace("@counters@", ", ".join(f"(uint64_t)dut->o_{name}" for name in COUNTERS))
    return re.sub(r"dut->\w+", lambda match: match[0].replace("__", "___05F"), text)  # as Verilator spells names in C++


def _command_words(parameters):
    return math.ceil(command_layout(parameters).size / 32)


def _write(file, parameters, run, streams, stall):
    command = command_layout(parameters).const(command_fields(parameters, run)).as_value().value
    file.write(np.uint64(stall).tobytes())
    file.write(np.uint64(1).tobytes() + command.to_bytes(4 * _command_words(parameters), "little"))
    for words in streams.west:
        even = np.pad(words, [(0, 0), (0, words.shape[1] % 2)])
        file.write(np.uint64(len(words)).tobytes() + even.astype("<u2").tobytes())
    index_bits = parameters.index_bits
    for entries in streams.north:
        value, index, valid = entries.T
        packed = value | index << 16 | valid << 16 + index_bits
        file.write(np.uint64(len(packed)).tobytes() + packed.astype("<u4").tobytes())


def _read(data, parameters, count):
    at = 0

    def take(size, dtype):
        nonlocal at
        at += size * np.dtype(dtype).itemsize
        return data[at - size * np.dtype(dtype).itemsize : at].view(dtype)

    results = []
    for _ in range(count):
        counters = dict(zip(COUNTERS, map(int, take(len(COUNTERS), "<u8")), strict=True))
        out = [take(int(take(1, "<u8")[0]), "<u4").copy() for _ in range(parameters.cols * parameters.drain_lanes)]
        results.append((counters, out))
    return results, int(take(1, "<u8")[0])
