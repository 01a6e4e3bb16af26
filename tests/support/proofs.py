"""Adders proved against IEEE 754: the netlist as a function in SMT-LIB, against bitwuzla's theory of floating point."""

import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import bitwuzla
from amaranth.back import verilog

from accel.rtl.toolchain import run_yosys

# A register becomes a wire: what is proved is the function of the whole pipeline. Tests show that its registers are balanced.
_TRANSPARENT = """
(* techmap_celltype = "$dff" *)
module transparent(CLK, D, Q);
parameter WIDTH = 1;
parameter CLK_POLARITY = 1;
input CLK;
input [WIDTH-1:0] D;
output [WIDTH-1:0] Q;
assign Q = D;
endmodule
"""

_SCRIPT = """
read_verilog unit.v
prep -flatten -top unit
techmap -map transparent.v
opt -full
clean -purge
write_functional_smt2 unit.smt2
"""


def smt_function(component, inputs, output):
    """Return SMT-LIB text that defines `unit`, the output of a component as a function of `inputs` (names and widths)."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        text = verilog.convert(component, name="unit", emit_src=False, strip_internal_attrs=True)
        (folder / "unit.v").write_text(text)
        (folder / "transparent.v").write_text(_TRANSPARENT)
        run_yosys(_SCRIPT, folder)
        text = (folder / "unit.smt2").read_text()
    # The solver has no datatypes: of the function between records only its body is kept.
    body = text[text.index("(let (") : text.index("(pair\n")]
    body = re.sub(r";.*", "", body)
    body = re.sub(r"\(unit_Inputs_(\w+) inputs\)", r"\1", body)
    result = re.search(rf"unit_Outputs\n\s+(\S+) ; {output}\n", text)[1]
    arguments = " ".join(f"({name} (_ BitVec {width}))" for name, width in inputs.items())
    width = len(getattr(component, output).as_value())
    closing = ")" * (len(re.findall(r"\(let\b", body)) + 1)
    return f"(define-fun unit ({arguments}) (_ BitVec {width})\n{body}{result}{closing}\n"


# What sums and products of FP16 stand for, written apart from accel.rtl.floats. A sum: bias 56, 0 for zero, 127 for special.
FP16_MEANING = """
(define-sort Float () Float32)
(define-fun sum_code ((x (_ BitVec 31))) (_ BitVec 7) ((_ extract 29 23) x))
(define-fun sum_fraction ((x (_ BitVec 31))) (_ BitVec 23) ((_ extract 22 0) x))
(define-fun sum_bits ((x (_ BitVec 31))) (_ BitVec 32)
  (concat ((_ extract 30 30) x)
    (ite (= (sum_code x) #b0000000) #x00 (ite (= (sum_code x) #b1111111) #xff (bvadd (concat #b0 (sum_code x)) #x47)))
    (sum_fraction x)))
(define-fun sum_float ((x (_ BitVec 31))) Float ((_ to_fp 8 24) (sum_bits x)))
(define-fun is_sum ((x (_ BitVec 31))) Bool
  (or (and (= (sum_code x) #b0000000) (= (sum_fraction x) (_ bv0 23)))
      (and (bvuge (sum_code x) #b0001000) (bvule (sum_code x) #b1110111))
      (and (= (sum_code x) #b1111111) (= (sum_fraction x) (_ bv0 23)))
      (= x (concat #b011111111 (_ bv0 22)))))
(define-fun significand ((y (_ BitVec 32))) (_ BitVec 22) ((_ extract 21 0) y))
(define-fun product_code ((y (_ BitVec 32))) (_ BitVec 7) ((_ extract 28 22) y))
(define-fun is_special ((y (_ BitVec 32))) Bool (= ((_ extract 30 30) y) #b1))
(define-fun is_nan ((y (_ BitVec 32))) Bool (= ((_ extract 31 31) y) #b1))
(define-fun product_bits ((y (_ BitVec 32))) (_ BitVec 32)
  (concat ((_ extract 29 29) y)
    (ite (is_special y) (concat #xff (ite (is_nan y) #b1 #b0) (_ bv0 22))
    (ite (= (significand y) (_ bv0 22)) (_ bv0 31)
    (ite (= ((_ extract 21 21) y) #b1)
      (concat (bvadd (concat #b0 (product_code y)) #x47) ((_ extract 20 0) y) #b00)
      (concat (bvadd (concat #b0 (product_code y)) #x46) ((_ extract 19 0) y) #b000))))))
(define-fun product_float ((y (_ BitVec 32))) Float ((_ to_fp 8 24) (product_bits y)))
(define-fun is_product ((y (_ BitVec 32))) Bool
  (or (is_special y)
      (and (= (significand y) (_ bv0 22)) (= (product_code y) #b0000000))
      (and (distinct ((_ extract 21 20) y) #b00) (bvuge (product_code y) #b0001001) (bvule (product_code y) #b1110111))))
"""

_ADDER_CLAIM = """
(declare-const x (_ BitVec 31))
(declare-const y (_ BitVec 32))
(define-fun r () Float (fp.add {mode} (sum_float x) (product_float y)))
(define-fun got () (_ BitVec 31) (unit x y))
(assert (is_sum x))
(assert (is_product y))
; Not reached by sums of multiples of 2^-48: results below that, or of 2^64 and more.
(assert (or (fp.isZero r) (fp.isNaN r) (fp.isInfinite r)
  (and (fp.geq (fp.abs r) ((_ to_fp 8 24) #x27800000)) (fp.lt (fp.abs r) ((_ to_fp 8 24) #x5f800000)))))
(assert (not (and (is_sum got)
  (ite (fp.isNaN r) (= (sum_bits got) #x7fc00000) (= (sum_float got) r)))))
(check-sat)
"""


def adder_claim(function, mode="RNE"):
    """Return the query that is unsatisfiable if `function` is addition rounded by `mode`."""
    return f"(set-logic QF_BVFP)\n{FP16_MEANING}{function}{_ADDER_CLAIM.format(mode=mode)}"


# 2^56 is #x5b800000; products are below 2^32, #x4f800000.
BOUND_CLAIM = """
(set-logic QF_FP)
(declare-const s Float32)
(declare-const p Float32)
(assert (fp.leq (fp.abs s) ((_ to_fp 8 24) #x5b800000)))
(assert (fp.lt (fp.abs p) ((_ to_fp 8 24) #x4f800000)))
(assert (not (fp.leq (fp.abs (fp.add RNE s p)) ((_ to_fp 8 24) #x5b800000))))
(check-sat)
"""


def solve(query):
    """Return "sat" or "unsat" and the seconds it took."""
    start = time.process_time()
    with TemporaryDirectory() as name:
        path = Path(name) / "query.smt2"
        path.write_text(query)
        terms = bitwuzla.TermManager()
        options = bitwuzla.Options()
        parser = bitwuzla.Parser(terms, options, "smt2")
        parser.parse(str(path), parse_only=True)
        answer = str(parser.bitwuzla().check_sat())
    return answer, time.process_time() - start
