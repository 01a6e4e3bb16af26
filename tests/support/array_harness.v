// The array between sources and sinks that read their words, and the pauses before them, from files. An answer of each run, its
// counters and the cycles in which no command was taken, goes to runs.out.

module stream_source #(parameter WIDTH = 1) (
  input clk, input rst, input done, output reg valid, input ready, output reg [WIDTH-1:0] payload, output quiet,
  input [127:0] name  // an input: Verilator writes a module anew for each set of parameters
);
  integer file = 0, pause = 0;
  reg at_end = 0;
  reg [WIDTH-1:0] word = 0;
  assign quiet = ~valid & at_end;

  task next;
    begin
      at_end = $fscanf(file, "%d %h", pause, word) != 2;
      show;
    end
  endtask

  // What is shown without `valid` is wrong in every bit.
  task show;
    begin
      valid <= ~at_end & (pause == 0);
      payload <= ~at_end & (pause == 0) ? word : ~word;
    end
  endtask

  always @(posedge clk) begin
    if (rst) begin
      if (file != 0) $fclose(file);
      file = $fopen({name, ".in"}, "r");
      next;
    end else if (valid & ready) next;
    else if (~valid & ~at_end) begin
      pause = pause - 1;
      show;
    end
  end
endmodule

module stream_sink #(parameter WIDTH = 1) (
  input clk, input rst, input done, input valid, output reg ready, input [WIDTH-1:0] payload, output quiet,
  input [127:0] name
);
  integer file = 0, words = 0, pause = 0;
  reg is_waiting = 0;
  reg [WIDTH-1:0] waiting = 0;
  assign quiet = ~valid;

  task next;
    if ($fscanf(file, "%d", pause) != 1) pause = 0;
  endtask

  // A pause counts from the cycle in which the word is there.
  always @(posedge clk) begin
    if (rst) begin
      if (file != 0) begin $fclose(file); $fclose(words); end
      file = $fopen({name, ".in"}, "r");
      words = $fopen({name, ".out"}, "w");
      next;
    end else begin
      if (is_waiting & (~valid | payload !== waiting)) $fdisplay(words, "broken");
      if (valid & ready) begin
        $fdisplay(words, "%h", payload);
        next;
      end else if (valid) pause = pause - 1;
      if (done) $fflush(words);
    end
    is_waiting = ~rst & valid & ~ready;
    waiting = payload;
    ready <= pause == 0;
  end
endmodule

module array_harness (input clk, input rst, output reg done, output reg hung, output reg [63:0] clocks);
@WIRES@
  wire [47:0] @COUNTERS@;
  wire is_quiet = @QUIET@;
  integer runs = 0, quiet_cycles = 0, cycles_of_run = 0;
  reg is_running = 0;
@ARRAY@
@PARTS@

  always @(posedge clk) begin
    done <= 0;
    if (rst) begin
      if (runs != 0) $fclose(runs);
      runs = $fopen("runs.out", "w");
      is_running = 0;
      quiet_cycles = 0;
      cycles_of_run = 0;
      hung <= 0;
      clocks <= 0;
    end else begin
      clocks <= clocks + 1;
      if (i_command_ready & is_running) begin
        $fdisplay(runs, "%0d @FORMAT@", cycles_of_run, @COUNTERS@);
        is_running = 0;
      end
      if (i_command_valid & i_command_ready) begin
        is_running = 1;
        cycles_of_run = 0;
      end
      cycles_of_run = cycles_of_run + 1;
      quiet_cycles = is_quiet & ~is_running ? quiet_cycles + 1 : 0;
      if (quiet_cycles >= 64 | cycles_of_run >= 100000) begin
        done <= 1;
        hung <= quiet_cycles < 64;
        $fflush(runs);
      end
    end
  end
endmodule
