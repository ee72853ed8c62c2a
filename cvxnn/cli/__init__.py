"""Command line: ``cvxnn COMMAND``, one module for each command.

The program is `cvxnn.cli.main.main`, which lists the commands. Its exit codes are 0 when all is
done or nothing is to do; 1 for bad data, or a missing file or package; 2 for a usage error; 3 if a
fit did not converge (its result is written) or a plan does not fit; 4 if a result of other settings
is in the way; and 130 if it was interrupted (the message says what is kept).
"""
