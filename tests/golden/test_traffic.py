import pytest

from accel.golden.traffic import StoredOperand, TiledProduct, walk

WEST = StoredOperand(size=6, distinct=6, row_bits=32, halo_bits=0, group_bits=16)
NORTH = StoredOperand(size=4, distinct=4, row_bits=32, halo_bits=0, group_bits=16)


def tiled(west=WEST, north=NORTH, groups=2, count=1, tile_m=6, tile_n=4, tile_groups=2, loop_order="mnk"):
    return TiledProduct(west, north, groups, count, 24 * count, 16, tile_m, tile_n, tile_groups, loop_order)


def test_a_product_in_one_tile_moves_everything_once():
    traffic = walk(tiled())
    assert (traffic.west_bits, traffic.north_bits, traffic.spilled_bits, traffic.stored_bits) == (6 * 32, 4 * 32, 0, 24 * 16)
    assert traffic.transfers == 3
    assert traffic.dram_bytes == (6 * 32 + 4 * 32 + 24 * 16) // 8
    assert traffic.north_groups == 8


def test_the_inner_operand_is_loaded_again_for_each_outer_tile():
    traffic = walk(tiled(tile_m=4, tile_n=2, loop_order="mnk"))
    assert (traffic.west_bits, traffic.north_bits) == (6 * 32, 2 * 4 * 32)
    assert traffic.transfers == 2 + 4 + 4
    traffic = walk(tiled(tile_m=4, tile_n=2, loop_order="nmk"))
    assert (traffic.west_bits, traffic.north_bits) == (2 * 6 * 32, 4 * 32)


def test_partial_sums_are_spilled_when_k_is_not_innermost():
    traffic = walk(tiled(tile_m=3, tile_groups=1, loop_order="kmn"))
    assert traffic.spilled_bits == 2 * 24 * 32
    assert (traffic.west_bits, traffic.north_bits) == (6 * 2 * 16, 4 * 2 * 16)
    assert traffic.transfers == 4 + 2 + (2 + 2 + 2)
    assert walk(tiled(tile_m=3, tile_groups=1, loop_order="mnk")).spilled_bits == 0
    assert walk(tiled(tile_groups=1, loop_order="kmn")).spilled_bits == 0


def test_rows_that_share_data_are_loaded_once_a_tile():
    west = StoredOperand(size=6, distinct=2, row_bits=32, halo_bits=5, group_bits=16)
    assert walk(tiled(west=west)).west_bits == 2 * 32 + 5
    assert walk(tiled(west=west, tile_m=5)).west_bits == (2 + 1) * 32 + 2 * 5
    assert walk(tiled(west=west, tile_m=5, tile_groups=1)).west_bits == 2 * (2 + 1) * 16


def test_each_of_equal_products_moves_its_own_tiles():
    one, three = walk(tiled(tile_m=2)), walk(tiled(tile_m=2, count=3))
    assert (three.transfers, three.dram_bytes) == (3 * one.transfers, 3 * one.dram_bytes)


@pytest.mark.parametrize("loop_order", ["mnk", "mkn", "nmk", "nkm", "kmn", "knm"])
def test_a_ragged_last_tile_moves_what_it_holds(loop_order):
    traffic = walk(tiled(groups=3, tile_m=4, tile_groups=2, loop_order=loop_order))
    assert traffic.west_bits == 6 * 3 * 16
