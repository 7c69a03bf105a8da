def test_criss_cross_costs_at_most_a_fifth_of_full_attention(load_benchmark):
    benchmark = load_benchmark("criss_cross_cost")
    full = benchmark.flops(benchmark.non_local, 97, 97, 512)
    crossed = benchmark.flops(benchmark.criss_cross, 97, 97, 512)
    # Both by hand: projections, energies and mixing, two FLOPs a product. A count below that
    # would mean that XLA did not see the work.
    n, projections = 97 * 97, 2 * 97 * 97 * 512 * (64 + 64 + 512)
    assert full >= projections + 2 * n * n * (64 + 512)
    assert crossed >= 2 * (projections + 2 * n * 2 * 97 * (64 + 512))
    assert crossed <= 0.2 * full
