from .page import Made as Made
from .page import Report as Report
from .page import keep_page as keep_page
from .page import make_report as make_report
from .page import style as style
from .page import write_page as write_page
