"""python -m stillroom"""

import sys

from stillroom.cli import main

sys.exit(main())
