"""The columns of a file and the gaps between them cover it once, and columns that cannot lie so are refused."""

import pytest

from bimangrasp.files.byte_ranges import Piece, with_gaps
from bimangrasp.files.schema import GRASP_FIELDS, FormatError

FIELD = GRASP_FIELDS[0]


def columns(*spans):
    return [Piece(first, end, FIELD) for first, end in spans]


@pytest.mark.parametrize("spans", [[], [(0, 0)], [(0, 4)], [(3, 10)], [(0, 0), (2, 4), (4, 6), (9, 10)]])
def test_pieces_cover_the_file_once(spans):
    pieces = list(with_gaps(columns(*spans), 10))
    assert [at for piece in pieces for at in range(piece.first, piece.end)] == list(range(10))
    assert [piece[:2] for piece in pieces if piece.field is not None] == spans
    assert [piece.name for piece in pieces[1::2]] == [FIELD.name] * len(spans)


@pytest.mark.parametrize("spans, message", [([(2, 6), (5, 8)], "over another"), ([(2, 11)], "ends after 10 bytes")])
def test_columns_that_cannot_lie_so_are_refused(spans, message):
    with pytest.raises(FormatError, match=message):
        list(with_gaps(columns(*spans), 10))
