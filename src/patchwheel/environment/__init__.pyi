from .compose import check_environment as check_environment
from .compose import check_link as check_link
from .compose import compose_environment as compose_environment
from .upstream_tests import run_tests as run_tests
