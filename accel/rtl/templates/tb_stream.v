// Both ends of a stream for self-checking benches, with or without pauses of random length.
`timescale 1ns / 1ps
`default_nettype none

// Offers words first to last - 1 in order: `index` says which one is on offer. `valid` stays until `ready`.
module tb_@PREFIX@source #(
    parameter [31:0] SEED = 1,
    parameter STALL_BITS = 2
) (
    input wire clk,
    input wire restart,
    input wire stalls,
    input wire [31:0] first,
    input wire [31:0] last,
    input wire ready,
    output reg valid,
    output reg [31:0] index,
    output wire done
);
  reg [31:0] next;
  reg [31:0] lfsr;
  wire pauses = stalls && lfsr[STALL_BITS-1:0] == 0;

  assign done = !valid && next == last;

  always @(posedge clk)
    if (restart) begin
      valid <= 0;
      next  <= first;
      index <= first;
      lfsr  <= SEED | 1;
    end else begin
      lfsr <= {lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0]};
      if (!valid || ready) begin
        valid <= next != last && !pauses;
        if (next != last && !pauses) begin
          index <= next;
          next  <= next + 1;
        end
      end
    end
endmodule

// Takes words and compares them with `expected`, which the bench looks up at `index`.
module tb_@PREFIX@sink #(
    parameter WIDTH = 32,
    parameter LANE = 0,
    parameter [31:0] SEED = 1,
    parameter STALL_BITS = 2
) (
    input wire clk,
    input wire restart,
    input wire stalls,
    input wire [31:0] first,
    input wire [31:0] last,
    input wire valid,
    input wire [WIDTH-1:0] data,
    input wire [WIDTH-1:0] expected,
    output reg ready,
    output reg [31:0] index,
    output wire done,
    output reg [31:0] errors
);
  reg [31:0] lfsr;
  reg was_stalled;
  reg [WIDTH-1:0] held;

  assign done = index == last;
  initial errors = 0;

  always @(posedge clk)
    if (restart) begin
      ready <= 0;
      index <= first;
      lfsr <= SEED | 1;
      was_stalled <= 0;
    end else begin
      lfsr <= {lfsr[30:0], lfsr[31] ^ lfsr[21] ^ lfsr[1] ^ lfsr[0]};
      ready <= !(stalls && lfsr[STALL_BITS-1:0] == 0);
      was_stalled <= valid && !ready;
      held <= data;
      if (was_stalled && (valid !== 1 || data !== held)) begin
        errors <= errors + 1;
        if (errors < 4) $display("FAIL lane %0d: valid fell or data changed before ready", LANE);
      end else if (valid === 1'bx) begin
        errors <= errors + 1;
        if (errors < 4) $display("FAIL lane %0d: valid is unknown", LANE);
      end else if (valid && ready && index == last) begin
        errors <= errors + 1;
        if (errors < 4) $display("FAIL lane %0d: %h is one word too many", LANE, data);
      end else if (valid && ready) begin
        index <= index + 1;
        if (data !== expected) begin
          errors <= errors + 1;
          if (errors < 4) $display("FAIL lane %0d, word %0d: must be %h, not %h", LANE, index - first, expected, data);
        end
      end
    end
endmodule

`default_nettype wire
