from .pool import check_address as check_address
from .pool import open_cluster as open_cluster
from .pool import scheduler_address as scheduler_address
from .worker import advertised as advertised
