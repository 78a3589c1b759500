from .write import write_lock as write_lock
