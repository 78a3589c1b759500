from .settings import open_remote as open_remote
from .store import Remote as Remote
from .store import SharedWheel as SharedWheel
from .store import is_signed as is_signed
from .store import parse_shared as parse_shared
from .store import sign as sign
from .transport import is_loopback as is_loopback
