"""`python -m coatcheck.cli`."""

import sys

from coatcheck.cli.main import main

sys.exit(main())
