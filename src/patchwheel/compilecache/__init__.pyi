from .program import CompileCache as CompileCache
from .program import header_names as header_names
from .program import open_cache as open_cache
from .shared import KIND as KIND
from .shared import Shared as Shared
from .shared import all_shared as all_shared
