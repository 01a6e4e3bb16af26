// Self-checking bench of @NAME@: sums in every built dataflow without and with cycles in which i_enable is low, on vectors in the
// .hex files. What passes through is compared in every cycle, drain chain and sum wherever a word is known.
//
// Ends with one line PASS, or with lines FAIL and an exit status.
`timescale 1ns / 1ps
`default_nettype none

module tb_@NAME@;
  // PARAMETERS

  reg clk = 0;
  reg is_enabled = 0;
  reg stalls = 0;
  reg [31:0] lfsr = 1;
  always #5 clk = ~clk;

  reg [INPUT_BITS-1:0] inputs[0:CYCLES-1];
  reg [2*SUM_BITS+1:0] outputs[0:CYCLES-1];  // is o_sum known, o_sum, is o_drain known, o_drain
  reg [31:0] cycle = 0;
  wire [INPUT_BITS-1:0] now = inputs[cycle];
  wire [2*SUM_BITS+1:0] expected = outputs[cycle];
  reg [PASSED_BITS-1:0] previous = 0;
  wire [PASSED_BITS-1:0] passed;
  wire [SUM_BITS-1:0] drain, sum;

  // INSTANCE

  integer errors = 0, compared = 0, clocks = 0;

  task fail(input [8*24-1:0] what, input [PASSED_BITS-1:0] right, input [PASSED_BITS-1:0] found);
    begin
      errors = errors + 1;
      if (errors < 10) $display("FAIL cycle %0d: %0s must be %h, not %h", cycle, what, right, found);
    end
  endtask

  // Outputs are looked at just before the rising edge that ends their cycle.
  always @(posedge clk) begin
    clocks <= clocks + 1;
    lfsr   <= {lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0]};
    is_enabled <= !(stalls && lfsr[1:0] == 0);
    if (is_enabled) begin
      if (cycle != 0 && passed !== previous) fail("what passes through", previous, passed);
      if (expected[SUM_BITS]) begin
        compared <= compared + 1;
        if (drain !== expected[SUM_BITS-1:0]) fail("o_drain", expected[SUM_BITS-1:0], drain);
      end
      if (expected[2*SUM_BITS+1]) begin
        compared <= compared + 1;
        if (sum !== expected[SUM_BITS+1+:SUM_BITS]) fail("o_sum", expected[SUM_BITS+1+:SUM_BITS], sum);
      end
      previous <= now[PASSED_BITS-1:0];
      cycle  <= cycle == CYCLES - 1 ? 0 : cycle + 1;
      if (cycle == CYCLES - 1) stalls <= 1;
      if (cycle == CYCLES - 1 && stalls) finish;
    end
  end

  task finish;
    if (errors == 0) begin
      $display("PASS @NAME@: %0d cycles without and with pauses, %0d sums compared, %0d clock cycles, seed %0d", CYCLES, compared,
               clocks, SEED);
      $finish;
    end else begin
      $display("FAIL @NAME@: %0d errors, seed %0d", errors, SEED);
      $fatal(1);
    end
  endtask

  initial begin
    $readmemh("inputs.hex", inputs);
    $readmemh("outputs.hex", outputs);
  end
endmodule

`default_nettype wire
