"""What a file may demand of the reader. Sizes are in characters or bytes; a hostile file meets one of these first."""

from __future__ import annotations

MAX_FIELD = 1_000_000
"""Characters in one field."""

MAX_RECORD = 8_000_000
"""Characters in one row with its line breaks: what an endless line can make the reader hold."""

MAX_COLUMNS = 1_000
"""Columns in the header."""

MAX_ROWS_OF_A_SHEET = 1_048_576
"""Rows that a worksheet can have; a file that says more is not from a spreadsheet."""

MAX_UNPACKED = 200_000_000
"""Bytes that an XLSX may unpack to: a workbook, unlike text, is not read in one bounded pass."""

MAX_RATIO = 100
"""Unpacked bytes for each packed byte; real tables stay under 30, a bomb is near 1,000."""

FREE_BYTES = 10_000_000
"""Bytes that may be unpacked before the ratio counts: a small and very regular table is no bomb."""
