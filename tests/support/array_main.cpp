// Feeds the array from a file, run by run, and writes what it gives; made whole by array_cpp.py.
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
static bool chance(uint64_t of_256) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 32) % 256 < of_256;
}
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
            for (size_t s = 0; s < sinks.size(); ++s) {
                if (!*sinks[s].valid || !*sinks[s].ready) continue;
                uint32_t word;
                memcpy(&word, sinks[s].payload, 4);
                results[s].push_back(word);
            }
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
