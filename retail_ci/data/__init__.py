"""From a raw log to clean sales."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cleaning": ["CleanLog", "clean"],
        "engines": ["connect"],
        "profiling": ["check_source"],
        "sources": ["open_source"],
        "synthetic": ["generate"],
    },
)
