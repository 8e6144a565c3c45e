"""The runner."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "runner": ["run_chain", "refresh_reports", "stale_reports"],
        "chain": ["order"],
    },
)
