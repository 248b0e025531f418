"""`python -m falcon_ssl` is the command `falcon-ssl`."""

import sys

from falcon_ssl.cli import main

sys.exit(main())
