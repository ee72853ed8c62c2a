"""Why the system refuses a place, in words."""

import errno
import re

import pytest

from cvxnn.files.folders import reason_of


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "the cache cannot be used (disk I/O error)"), r"^the .*disk I/O error"),
        (OSError(errno.EIO, "Input/output error"), "^input/output error$"),
        (OSError("Broken"), "^broken$"),
        (OSError(errno.EFBIG, "File too large"), "larger than the system allows; raise the limit"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
    ],
)
def test_reasons(error: OSError, said: str) -> None:
    assert re.search(said, reason_of(error))
