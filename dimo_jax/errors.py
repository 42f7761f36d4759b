"""The one exception that a user is meant to read.

`launch.py` prints its message on one line, without a traceback, and exits with code 2.
"""


class UserError(Exception):
    """Bad input from outside the program: a file, a folder, a flag or a config value.

    The message is one line that names the file or the config key, says what was found and what was expected.
    """
