// Self-checking bench of @NAME@: runs of every built kind, one after the other, on vectors in the .hex files beside it.
//
// Pass 0 is cut short by a reset in the middle of a run; pass 1 is without a pause on any stream, pass 2 with pauses on all.
// Every result and, after every run, every counter is compared. Ends with one line PASS, or with lines FAIL and an exit status.
`timescale 1ns / 1ps
`default_nettype none

module tb_@NAME@;
  // PARAMETERS

  reg aclk = 0;
  reg aresetn = 0;
  reg stalls = 0;
  reg holds_commands = 1;
  always #5 aclk = ~aclk;

  reg [COMMAND_BITS-1:0] command_words[0:RUNS-1];
  reg [COUNTERS*COUNTER_BITS-1:0] counts[0:RUNS-1];  // cycles, macs, west words, north entries, results
  reg [WEST_BITS-1:0] west_words[0:WEST_WORDS-1];
  reg [NORTH_BITS-1:0] north_words[0:NORTH_WORDS-1];
  reg [31:0] out_words[0:OUT_WORDS-1];
  // Where the words of each lane and run start; entry RUNS of a lane is where its last run ends.
  reg [31:0] west_starts[0:ROWS*(RUNS+1)-1];
  reg [31:0] north_starts[0:COLS*(RUNS+1)-1];
  reg [31:0] out_starts[0:CHAINS*(RUNS+1)-1];

  integer runs;  // how many of them: all, or as many as +runs=N says
  initial if (!$value$plusargs("runs=%d", runs) || runs < 1 || runs > RUNS) runs = RUNS;

  wire s_command_valid, s_command_ready, commands_done;
  wire [31:0] command_index;
  wire [ROWS-1:0] s_west_valid, s_west_ready, west_done;
  wire [ROWS*WEST_BITS-1:0] s_west_data;
  wire [COLS-1:0] s_north_valid, s_north_ready, north_done;
  wire [COLS*NORTH_BITS-1:0] s_north_data;
  wire [CHAINS-1:0] m_out_valid, m_out_ready, out_done;
  wire [CHAINS*32-1:0] m_out_data;
  wire [CHAINS*32-1:0] out_errors;
  wire [COUNTER_BITS-1:0] count_cycles, count_stall_cycles, count_macs;
  wire [COUNTER_BITS-1:0] count_west_words, count_north_entries, count_out_words;

  @NAME@ dut (
      .aclk(aclk),
      .aresetn(aresetn),
      .s_command_valid(s_command_valid),
      .s_command_ready(s_command_ready),
      .s_command_data(s_command_valid ? command_words[command_index] : {COMMAND_BITS{1'bx}}),
      .s_west_valid(s_west_valid),
      .s_west_ready(s_west_ready),
      .s_west_data(s_west_data),
      .s_north_valid(s_north_valid),
      .s_north_ready(s_north_ready),
      .s_north_data(s_north_data),
      .m_out_valid(m_out_valid),
      .m_out_ready(m_out_ready),
      .m_out_data(m_out_data),
      .count_cycles(count_cycles),
      .count_stall_cycles(count_stall_cycles),
      .count_macs(count_macs),
      .count_west_words(count_west_words),
      .count_north_entries(count_north_entries),
      .count_out_words(count_out_words)
  );

  tb_@PREFIX@source #(
      .SEED(32'h5EED0001),
      .STALL_BITS(2)
  ) commands (
      .clk(aclk),
      .restart(!aresetn || holds_commands),
      .stalls(stalls),
      .first(32'd0),
      .last(runs),
      .ready(s_command_ready),
      .valid(s_command_valid),
      .index(command_index),
      .done(commands_done)
  );

  genvar lane;
  generate
    for (lane = 0; lane < ROWS; lane = lane + 1) begin : west
      wire [31:0] index;
      assign s_west_data[lane*WEST_BITS+:WEST_BITS] = s_west_valid[lane] ? west_words[index] : {WEST_BITS{1'bx}};
      tb_@PREFIX@source #(
          .SEED(32'h9E3779B9 * (lane + 1)),
          .STALL_BITS(STALL_BITS)
      ) source (
          .clk(aclk),
          .restart(!aresetn),
          .stalls(stalls),
          .first(west_starts[lane*(RUNS+1)]),
          .last(west_starts[lane*(RUNS+1)+runs]),
          .ready(s_west_ready[lane]),
          .valid(s_west_valid[lane]),
          .index(index),
          .done(west_done[lane])
      );
    end
    for (lane = 0; lane < COLS; lane = lane + 1) begin : north
      wire [31:0] index;
      assign s_north_data[lane*NORTH_BITS+:NORTH_BITS] = s_north_valid[lane] ? north_words[index] : {NORTH_BITS{1'bx}};
      tb_@PREFIX@source #(
          .SEED(32'h85EBCA6B * (lane + 1)),
          .STALL_BITS(STALL_BITS)
      ) source (
          .clk(aclk),
          .restart(!aresetn),
          .stalls(stalls),
          .first(north_starts[lane*(RUNS+1)]),
          .last(north_starts[lane*(RUNS+1)+runs]),
          .ready(s_north_ready[lane]),
          .valid(s_north_valid[lane]),
          .index(index),
          .done(north_done[lane])
      );
    end
    for (lane = 0; lane < CHAINS; lane = lane + 1) begin : out
      wire [31:0] index;
      tb_@PREFIX@sink #(
          .WIDTH(32),
          .LANE(lane),
          .SEED(32'hC2B2AE35 * (lane + 1)),
          .STALL_BITS(STALL_BITS)
      ) sink (
          .clk(aclk),
          .restart(!aresetn),
          .stalls(stalls),
          .first(out_starts[lane*(RUNS+1)]),
          .last(out_starts[lane*(RUNS+1)+runs]),
          .valid(m_out_valid[lane]),
          .data(m_out_data[lane*32+:32]),
          .expected(out_words[index]),
          .ready(m_out_ready[lane]),
          .index(index),
          .done(out_done[lane]),
          .errors(out_errors[lane*32+:32])
      );
    end
  endgenerate

  // Counters hold what the last run left while a command may be taken.
  integer started = 0, checked = 0, count_errors = 0, pauses_seen = 0, clocks = 0;
  wire [COUNTERS*COUNTER_BITS-1:0] found = {count_out_words, count_north_entries, count_west_words, count_macs, count_cycles};

  always @(posedge aclk) begin
    clocks <= clocks + 1;
    if (!aresetn) begin
      started <= 0;
      checked <= 0;
      pauses_seen <= 0;
    end else begin
      if (s_command_valid && s_command_ready) started <= started + 1;
      if (s_command_ready && started != checked) begin
        checked <= checked + 1;
        if (count_stall_cycles != 0) pauses_seen <= pauses_seen + 1;
        if (found !== counts[checked]) begin
          count_errors <= count_errors + 1;
          $display("FAIL run %0d: results, north entries, west words, MACs, cycles must be %h, not %h", checked, counts[checked],
                   found);
        end
        if (!stalls && count_stall_cycles !== 0) begin
          count_errors <= count_errors + 1;
          $display("FAIL run %0d: no stream paused, but %0d cycles were lost", checked, count_stall_cycles);
        end
      end
    end
  end

  integer pass_errors = 0, waited = 0;

  task check(input is_right, input [8*48-1:0] what);
    if (is_right !== 1) begin
      pass_errors = pass_errors + 1;
      $display("FAIL %0s", what);
    end
  endtask

  // Reset, let the streams' first words in, then send the commands and wait, at most `limit` cycles.
  task run_pass(input with_stalls, input integer limit);
    begin
      @(negedge aclk);
      aresetn = 0;
      stalls = with_stalls;
      holds_commands = 1;
      @(negedge aclk);
      check(m_out_valid === 0, "m_out_valid must be low in reset");
      check(s_command_ready === 1 && &s_west_ready && &s_north_ready, "inputs must be ready in reset");
      check({found, count_stall_cycles} === 0, "counters must be 0 in reset");
      aresetn = 1;
      repeat (8) @(negedge aclk);
      holds_commands = 0;
      waited = 0;
      while (waited < limit && !(checked == runs && commands_done && &west_done && &north_done && &out_done)) begin
        @(negedge aclk);
        waited = waited + 1;
      end
    end
  endtask

  integer total, number, results;

  initial begin
    $readmemh("commands.hex", command_words);
    $readmemh("counts.hex", counts);
    $readmemh("west.hex", west_words);
    $readmemh("north.hex", north_words);
    $readmemh("out.hex", out_words);
    $readmemh("west_starts.hex", west_starts);
    $readmemh("north_starts.hex", north_starts);
    $readmemh("out_starts.hex", out_starts);

    run_pass(1'b1, CUT_CYCLES);
    run_pass(1'b0, LIMIT_CYCLES);
    check(checked == runs && &west_done && &north_done && &out_done, "not every word came or was taken, pass 1");
    check(pauses_seen == 0, "pauses were counted where there were none");
    repeat (16) @(negedge aclk);
    run_pass(1'b1, LIMIT_CYCLES);
    check(checked == runs && &west_done && &north_done && &out_done, "not every word came or was taken, pass 2");
    check(pauses_seen != 0, "no pause was counted");
    repeat (16) @(negedge aclk);

    total = count_errors + pass_errors;
    results = 0;
    for (number = 0; number < CHAINS; number = number + 1) begin
      total = total + out_errors[number*32+:32];
      results = results + 2 * (out_starts[number*(RUNS+1)+runs] - out_starts[number*(RUNS+1)]);
    end
    if (total == 0) begin
      $display("PASS @NAME@: %0d runs without and with pauses, %0d results and %0d counters compared, %0d clock cycles, seed %0d",
               runs, results, 2 * runs * COUNTERS, clocks, SEED);
      $finish;
    end else begin
      $display("FAIL @NAME@: %0d errors, seed %0d", total, SEED);
      $fatal(1);
    end
  end
endmodule

`default_nettype wire
