// Self-checking bench of @NAME@: groups of all lengths without and with pauses on both streams, on vectors in the .hex files.
//
// Ends with one line PASS, or with lines FAIL and an exit status.
`timescale 1ns / 1ps
`default_nettype none

module tb_@NAME@;
  // PARAMETERS

  reg aclk = 0;
  reg aresetn = 0;
  reg stalls = 0;
  always #5 aclk = ~aclk;

  reg [GROUP_BITS-1:0] groups[0:GROUPS-1];
  reg [ENTRIES_BITS-1:0] entries[0:GROUPS-1];

  wire s_group_valid, s_group_ready, m_entries_valid, m_entries_ready, source_done, sink_done;
  wire [31:0] group_index, entries_index, errors;
  wire [ENTRIES_BITS-1:0] m_entries_data;

  @NAME@ dut (
      .aclk(aclk),
      .aresetn(aresetn),
      .s_group_valid(s_group_valid),
      .s_group_ready(s_group_ready),
      .s_group_data(s_group_valid ? groups[group_index] : {GROUP_BITS{1'bx}}),
      .m_entries_valid(m_entries_valid),
      .m_entries_ready(m_entries_ready),
      .m_entries_data(m_entries_data)
  );

  tb_@PREFIX@source #(
      .SEED(32'h5EED0001),
      .STALL_BITS(2)
  ) source (
      .clk(aclk),
      .restart(!aresetn),
      .stalls(stalls),
      .first(32'd0),
      .last(GROUPS),
      .ready(s_group_ready),
      .valid(s_group_valid),
      .index(group_index),
      .done(source_done)
  );

  tb_@PREFIX@sink #(
      .WIDTH(ENTRIES_BITS),
      .SEED(32'hC2B2AE35),
      .STALL_BITS(2)
  ) sink (
      .clk(aclk),
      .restart(!aresetn),
      .stalls(stalls),
      .first(32'd0),
      .last(GROUPS),
      .valid(m_entries_valid),
      .data(m_entries_data),
      .expected(entries[entries_index]),
      .ready(m_entries_ready),
      .index(entries_index),
      .done(sink_done),
      .errors(errors)
  );

  integer clocks = 0, first_in = -1, first_out = -1, last_out = -1, pass_errors = 0, waited = 0;

  always @(posedge aclk) begin
    clocks <= clocks + 1;
    if (!aresetn) begin
      first_in  <= -1;
      first_out <= -1;
    end else begin
      if (s_group_valid && s_group_ready && first_in < 0) first_in <= clocks;
      if (m_entries_valid && first_out < 0) first_out <= clocks;
      if (m_entries_valid) last_out <= clocks;
    end
  end

  task check(input is_right, input [8*48-1:0] what);
    if (is_right !== 1) begin
      pass_errors = pass_errors + 1;
      $display("FAIL %0s", what);
    end
  endtask

  task run_pass(input with_stalls, input integer limit);
    begin
      @(negedge aclk);
      aresetn = 0;
      stalls  = with_stalls;
      @(negedge aclk);
      check(m_entries_valid === 0 && s_group_ready === 1, "in reset nothing may be held");
      aresetn = 1;
      waited = 0;
      while (waited < limit && !(source_done && sink_done)) begin
        @(negedge aclk);
        waited = waited + 1;
      end
    end
  endtask

  initial begin
    $readmemh("groups.hex", groups);
    $readmemh("entries.hex", entries);
    run_pass(1'b1, 50);
    run_pass(1'b0, 8 * GROUPS + 100);
    check(source_done && sink_done, "not every word came or was taken, pass 1");
    check(first_out - first_in == LATENCY, "the latency is another");
    check(last_out - first_out == GROUPS - 1, "not one group a cycle");
    repeat (16) @(negedge aclk);
    run_pass(1'b1, 8 * GROUPS + 100);
    check(source_done && sink_done, "not every word came or was taken, pass 2");
    repeat (16) @(negedge aclk);
    if (errors + pass_errors == 0) begin
      $display("PASS @NAME@: %0d groups without and with pauses compared, %0d clock cycles, seed %0d", GROUPS, clocks, SEED);
      $finish;
    end else begin
      $display("FAIL @NAME@: %0d errors, seed %0d", errors + pass_errors, SEED);
      $fatal(1);
    end
  end
endmodule

`default_nettype wire
