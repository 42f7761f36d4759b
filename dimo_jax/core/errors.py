"""The exceptions that a user is meant to read.

`launch.py` prints the message on one line, without a traceback, and exits with the exception's `exit_code`.
"""

from __future__ import annotations

import errno

# What an OSError says where a disk takes no more.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class UserError(Exception):
    """Bad input from outside the program: a file, a folder, a flag or a config value.

    The message is one line that names the file or the config key, says what was found and what was expected.
    """

    exit_code = 2
    label = "error"


class WriteFailed(UserError):
    """A running job can no longer write its files: a full disk, a quota, a folder that became read-only."""

    exit_code = 4


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGINT ended the job, and what it had is saved; the same command goes on (EX_TEMPFAIL of sysexits.h).

    Like every interrupt it is none of the errors that code on the way may want to handle.
    """

    exit_code = 75
    label = "stopped"
