from typing import Tuple

__version__: str
MODULES: str
NAMES: Tuple[str, ...]

def install() -> None: ...
