import pytest

from flaxseg.planning.collectives import Collective, collectives, sent_share

PROGRAM = """\
HloModule jit_step

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(%a, %b)
}

%region_0.1 (p: (s32[], f32[16,8])) -> (s32[], f32[16,8]) {
  %all-reduce.1 = f32[16,8]{1,0} all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%sum, \
metadata={op_name="jit(step)/transpose(jvp())/dot"}
}

%region_1.2 (p: (s32[], f32[16,8])) -> pred[] {
  %bound = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (x: f32[16,8]) -> f32[16,8] {
  %while.1 = (s32[], f32[16,8]) while(%t), condition=%region_1.2, body=%region_0.1, WHILE
  %ag = f32[64,8]{1,0} all-gather(%w), replica_groups={{0,1},{2,3}}, dimensions={0}
  %rs = bf16[8,8]{1,0} reduce-scatter(%g), replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%sum
  %ar = (f32[8]{0}, f32[]) all-reduce(%m, %l), replica_groups=[1,8]<=[8], to_apply=%sum
}
"""


@pytest.mark.parametrize(
    "how_often", ['backend_config={"known_trip_count":{"n":"7"}}', 'metadata={op_name="while"}']
)
def test_reads_every_notation(how_often):
    assert collectives(PROGRAM.replace("WHILE", how_often)) == [
        ("all-reduce", (16, 8), 128, 4, 8, 7, True),
        ("all-gather", (64, 8), 512, 4, 2, 1, False),
        ("reduce-scatter", (8, 8), 256, 2, 4, 1, False),
        ("all-reduce", (8,), 8, 4, 8, 1, False),
        ("all-reduce", (), 1, 4, 8, 1, False),
    ]


def test_start_and_end_count_once():
    found = collectives("""\
%wrapped (a: f32[64,8]) -> f32[8,8] {
  ROOT %rs = f32[8,8]{1,0} reduce-scatter(%a), replica_groups=[1,8]<=[8], to_apply=%sum
}

ENTRY %main (x: f32[16,8]) -> f32[16,8] {
  %s1 = f32[16,8]{1,0} all-reduce-start(%x), replica_groups=[1,8]<=[8], to_apply=%sum
  %d1 = f32[16,8]{1,0} all-reduce-done(%s1)
  %s2 = (f32[16,8]{1,0}, f32[128,8]{1,0}) all-gather-start(%x), replica_groups=[1,8]<=[8]
  %d2 = f32[128,8]{1,0} all-gather-done(%s2)
  %s3 = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%y)
  %d3 = f32[4]{0} collective-permute-done(%s3)
  %s4 = ((f32[64,8]), f32[8,8], u32[]) async-start(%z), calls=%wrapped
  %d4 = f32[8,8]{1,0} async-done(%s4), calls=%wrapped
}
""")
    assert [(one.kind, one.shape, one.elements, one.times) for one in found] == [
        ("reduce-scatter", (8, 8), 512, 1),
        ("all-reduce", (16, 8), 128, 1),
        ("all-gather", (128, 8), 1024, 1),
        ("collective-permute", (4,), 4, 1),
    ]


def test_what_xla_for_tpus_makes_of_them():
    """An all-gather in three parts, and a fusion that is a reduce-scatter."""
    gather = (
        "all-gather(%x), replica_groups=[1,8]<=[8], channel_id=7, "
        'frontend_attributes={chain_id="0"}'
    )
    found = collectives(f"""\
%start (a: bf16[8,8]) -> bf16[64,8] {{
  %ag.1 = bf16[64,8]{{1,0:T(8,128)(2,1)S(1)}} {gather}
}}

%among_others (a: bf16[8,8]) -> bf16[64,8] {{
  %ag.2 = bf16[64,8]{{1,0:T(8,128)(2,1)S(1)}} {gather}
}}

%all-reduce-scatter.3 (a: bf16[64,8]) -> bf16[8,8] {{
  %ar = bf16[64,8]{{1,0:T(8,128)(2,1)}} all-reduce(%a), replica_groups=[1,8]<=[8], to_apply=%sum
  ROOT %part = bf16[8,8] dynamic-slice(%ar, %i, %zero), dynamic_slice_sizes={{8,8}}
}}

ENTRY %main (x: bf16[8,8]) -> bf16[64,8] {{
  %f1 = bf16[64,8] fusion(%x), kind=kCustom, calls=%start
  %f2 = bf16[64,8] fusion(%f1), kind=kCustom, calls=%among_others
  %f3 = bf16[8,8] fusion(%f2), kind=kCustom, calls=%all-reduce-scatter.3
}}
""")
    assert [(one.kind, one.bytes, one.sent) for one in found] == [
        ("all-gather", 1024, 1024 * 7 / 8),
        ("reduce-scatter", 1024, 1024 * 7 / 8),
    ]


def test_what_a_device_sends_in_a_ring():
    assert Collective("all-reduce", (8,), 8, 4, 4, 1, False).sent == 2 * 3 / 4 * 32
    assert sent_share("all-gather", 2) == 1 / 2
    assert sent_share("all-reduce", 1) == 0
    assert sent_share("collective-permute", 8) == 1
