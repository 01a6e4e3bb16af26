"""What a product reads from the buffers and writes in the array's registers, counted word by word over its tiles."""

from accel.golden.feed import ArrayForm, RunShape, os_tiles, ws_tiles


def walk_array(form: ArrayForm, shape: RunShape, dataflow, m_chunk):
    """Return (west words, north entries, west writes, north writes, sum writes): one loop turn for each word."""
    west_words = north_entries = west_writes = north_writes = sum_writes = 0
    tiles = os_tiles(form, shape) if dataflow == "OS" else ws_tiles(form, shape, m_chunk)
    for tile in tiles:
        groups = range(shape.groups) if dataflow == "OS" else range(tile.first_group, shape.groups)[: form.rows]
        for _group in groups:
            for _row in range(tile.rows):
                west_words += 1
                west_writes += sum(2 for _pe in range(form.cols))  # passed on, held
            for _column in range(tile.cols):
                for _entry in range(shape.keep):
                    north_entries += 1
                    north_writes += form.rows  # passed on
                    north_writes += form.rows if dataflow == "OS" else 1  # held
        sum_writes += _drained(form, tile) if dataflow == "OS" else tile.rows * tile.cols
    return west_words, north_entries, west_writes, north_writes, sum_writes


def _drained(form, tile):
    """Return the registers that the words of one OS tile pass: each goes through the rows of its chain, then straight down."""
    writes = 0
    for _column in range(min(form.cols, tile.cols)):
        for row in range(min(form.rows, tile.rows)):
            for _lane in range(form.lanes):
                own_chain = [below for below in range(row, form.rows) if below % form.drain_lanes == row % form.drain_lanes]
                other = form.rows - row - len(own_chain)
                writes += len(own_chain) * (form.lanes + 1) + other
    return writes
