"""What is read from compiled programs, on lines that libtpu wrote."""
# ruff: noqa: E501

from flaxseg.planning.estimate import estimate
from flaxseg.planning.products import CONVOLUTION, PRODUCT, WEIGHTS, Products, products

PROGRAM = """\
HloModule jit_step, is_scheduled=true
FileNames
1 "/somewhere/flaxseg/training/step.py"
2 "/somewhere/flaxseg/ops/conv.py"

FunctionNames
1 "make_train_step.<locals>.step"
2 "Conv._convolve"

FileLocations
1 {file_name_id=1 function_name_id=1 line=125 end_line=125 column=40 end_column=40}
2 {file_name_id=2 function_name_id=2 line=67 end_line=67 column=15 end_column=15}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%fused (a: f32[8]) -> f32[8] {
  %x = bf16[2,512,512,3]{0,3,2,1:T(4,128)(2,1)} parameter(0)
  %w = bf16[7,7,3,32]{3,2,1,0:T(4,128)(2,1)} parameter(1)
  %g = bf16[2,128,128,32]{3,2,1,0:T(8,128)(2,1)} parameter(2)
  %m = f32[256,256]{1,0:T(8,128)} parameter(3)
  %conv = bf16[2,128,128,32]{3,2,1,0} convolution(%x, %w), window={size=7x7 stride=4x4 pad=3_3x3_3}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(step)/jvp()/conv_general_dilated" stack_frame_id=2}
  %grad = bf16[7,7,3,32]{3,2,1,0} convolution(%x, %g), window={size=128x128 pad=3_0x3_0 rhs_dilate=4x4}, dim_labels=f01b_i01o->01bf, metadata={op_name="jit(step)/transpose(jvp())/conv_general_dilated" stack_frame_id=2}
  %dot = f32[8,8,64,64]{2,3,1,0} convolution(%g, %w), window={size=8x8 stride=7x7 lhs_dilate=8x8}, dim_labels=01bf_01oi->01bf, metadata={op_name="jit(step)/jvp(bhnd,bhmd->bhnm)/dot_general" stack_frame_id=1}
  ROOT %exact = f32[256,256]{1,0} convolution(%w, %m), dim_labels=bf_io->bf, operand_precision={highest,highest}, metadata={op_name="jit(step)/jvp()/dot_general" stack_frame_id=1}
}

%never (a: f32[8]) -> f32[8] {
  %y = f32[8,8]{1,0} parameter(0)
  ROOT %lost = f32[8,8]{1,0} dot(%y, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (a: f32[8]) -> f32[8] {
  ROOT %step = f32[8] fusion(%a), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/jvp()/conv_general_dilated" stack_frame_id=2}, backend_config={"window_config":{"estimated_cycles":"500"}}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %loop = f32[8] while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %back = f32[8] fusion(%loop), kind=kLoop, calls=%other, metadata={op_name="jit(step)/transpose(jvp())/add_any" stack_frame_id=1}, backend_config={"window_config":{"estimated_cycles":"250"}}
  ROOT %copy = f32[8] copy(%back), backend_config={"window_config":{"estimated_cycles":"250"}}
}
"""


def test_products_are_told_apart_by_kind_and_format():
    assert products(PROGRAM) == (
        Products(CONVOLUTION, "bfloat16", False, 3, (7, 7)),
        Products(WEIGHTS, "bfloat16", False, 3, (128, 128)),
        Products(PRODUCT, "bfloat16", False, 3, None),
        Products(PRODUCT, "float32", True, 3, None),
    )


def test_a_float32_product_that_nobody_asked_for_is_seen():
    program = PROGRAM.replace(", operand_precision={highest,highest}", "")
    assert Products(PRODUCT, "float32", False, 3, None) in products(program)


def test_cycles_are_those_of_the_functions_that_they_come_from():
    parts = estimate(PROGRAM, clock=1000.0)
    assert {(part.where, part.backward): part.seconds for part in parts} == {
        ("ops/conv.py Conv._convolve", False): 1.5,
        ("training/step.py make_train_step", True): 0.25,
        ("elsewhere", False): 0.25,
    }
    assert parts[0].seconds == max(part.seconds for part in parts)


def test_a_program_of_another_compiler_has_no_cycles():
    assert estimate(PROGRAM.replace("estimated_cycles", "cost"), clock=1000.0) == []
