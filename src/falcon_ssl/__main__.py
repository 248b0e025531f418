"""`python -m falcon_ssl` is the command `falcon-ssl`."""

import sys

from falcon_ssl.cli.main import main

sys.exit(main())
