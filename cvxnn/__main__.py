"""Program ``python -m cvxnn``, for use where the console script is not installed."""

import sys

from cvxnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
