from .settings import open_remote as open_remote
from .sign import is_signed as is_signed
from .sign import sign as sign
from .store import Remote as Remote
from .store import SharedWheel as SharedWheel
from .store import parse_shared as parse_shared
