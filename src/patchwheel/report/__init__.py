"""What a build took: a page about it, with its figures as JSON.

It knows nothing of forks and wheels: it is told what was made, and what took how long.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
