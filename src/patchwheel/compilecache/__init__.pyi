from .cache import KIND as KIND
from .cache import CompileCache as CompileCache
from .cache import Shared as Shared
from .cache import all_shared as all_shared
from .cache import header_names as header_names
from .cache import open_cache as open_cache
