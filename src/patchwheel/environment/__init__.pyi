from .alone import Alone as Alone
from .alone import try_patches_alone as try_patches_alone
from .compose import check_environment as check_environment
from .compose import compose_environment as compose_environment
from .link import added_to as added_to
from .link import check_link as check_link
from .upstream_tests import find_tests as find_tests
from .upstream_tests import run_tests as run_tests
