from .changes import changes as changes
from .write import committed_lock as committed_lock
from .write import lock_before as lock_before
from .write import write_lock as write_lock
