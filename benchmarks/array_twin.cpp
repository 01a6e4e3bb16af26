// Streams one run through the compiled array and checks every word it gives. array_twin.py puts lists of ports before this
// text: ROWS(X), COLS(X) and OUTS(X) are X(0) X(1) ... for each. Prints clock cycles, seconds of CPU time, wrong words,
// missing words, and the counters of the array. Verilator writes the double underscore of a port's name as ___05F.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "Vsystolic_array.h"

struct Stream {
    uint32_t words_per_transfer;
    std::vector<uint32_t> words;
    size_t next = 0;

    bool has_more() const { return next < words.size(); }
    const uint32_t *word() const { return &words[next]; }
    void advance() { next += words_per_transfer; }
};

static std::vector<Stream> read_streams(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t count = 0, header[2];
    if (!file || fread(&count, 4, 1, file) != 1) exit(2);
    std::vector<Stream> streams(count);
    for (Stream &stream : streams) {
        if (fread(header, 4, 2, file) != 2) exit(2);
        stream.words_per_transfer = header[0];
        stream.words.resize(header[1]);
        if (fread(stream.words.data(), 4, header[1], file) != header[1]) exit(2);
    }
    fclose(file);
    return streams;
}

template <typename Port> static void show(Port &payload, CData &valid, const Stream &stream) {
    valid = stream.has_more();
    if (stream.has_more()) memcpy(&payload, stream.word(), sizeof payload);
}

int main(int, char **args) {
    std::vector<Stream> streams = read_streams(args[1]);  // command, west, north, out
    const uint64_t patience = strtoull(args[2], nullptr, 10);
    Vsystolic_array *top = new Vsystolic_array;
    uint64_t clocks = 0, wrong = 0, missing = 0;
    size_t expected = 0;
    bool is_taken = false;

    top->rst = 1;
    for (int edge = 0; edge < 6; ++edge) {
        top->clk = edge & 1;
        top->eval();
    }
    top->rst = 0;
#define X(number) top->o_out___05F##number##___05Fready = 1;
    OUTS(X)
#undef X

    // The next command can be taken while the last words are still on their way to the output ports.
    int clocks_left = 8;
    const clock_t start = clock();
    for (; clocks < patience && clocks_left; ++clocks) {
        clocks_left -= is_taken && top->i_command___05Fready;
        Stream *stream = streams.data();
        show(top->i_command___05Fpayload, top->i_command___05Fvalid, *stream++);
#define X(number) show(top->i_west___05F##number##___05Fpayload, top->i_west___05F##number##___05Fvalid, *stream++);
        ROWS(X)
#undef X
#define X(number) show(top->i_north___05F##number##___05Fpayload, top->i_north___05F##number##___05Fvalid, *stream++);
        COLS(X)
#undef X
        top->clk = 0;
        top->eval();
        stream = streams.data();
        // Whoever is ready before the edge takes with it what is shown.
        if (top->i_command___05Fvalid && top->i_command___05Fready) is_taken = true, stream->advance();
        ++stream;
#define X(number)                                                                                   \
    if (top->i_west___05F##number##___05Fvalid && top->i_west___05F##number##___05Fready) stream->advance(); \
    ++stream;
        ROWS(X)
#undef X
#define X(number)                                                                                   \
    if (top->i_north___05F##number##___05Fvalid && top->i_north___05F##number##___05Fready) stream->advance(); \
    ++stream;
        COLS(X)
#undef X
#define X(number)                                                                             \
    if (top->o_out___05F##number##___05Fvalid) {                                                      \
        wrong += !stream->has_more() || top->o_out___05F##number##___05Fpayload != *stream->word();   \
        stream->advance();                                                                    \
    }                                                                                         \
    ++stream;
        OUTS(X)
#undef X
        top->clk = 1;
        top->eval();
    }
    const double seconds = double(clock() - start) / CLOCKS_PER_SEC;

    for (const Stream &stream : streams) {
        expected += stream.words.size();
        if (stream.has_more()) missing += stream.words.size() - stream.next;
    }
    printf("%" PRIu64 " %.6f %" PRIu64 " %" PRIu64, clocks, seconds, wrong, missing);
    for (uint64_t counter : {top->o_cycles, top->o_stall_cycles, top->o_macs, top->o_west_words, top->o_north_entries,
                             top->o_out_words})
        printf(" %" PRIu64, uint64_t(counter));
    printf("\n");
    return wrong || missing || !expected;
}
