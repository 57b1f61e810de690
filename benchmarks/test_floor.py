"""What is said to be left without aioxide concerns rows of the table."""

import floor


def test_every_row_is_one_of_the_table():
    from aioxide.bench import rows, scheduling

    assert set(floor.ROWS) <= {row.name for row in rows.every_row(full=False)}
    assert set(floor.ROWS.values()) <= set(scheduling.SCENARIOS)
