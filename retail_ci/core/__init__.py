"""Config, runs, errors, and how numbers and figures are shown."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["Config", "load_config"],
        "errors": ["ConfigError", "DataError", "RetailError", "RunError"],
        "runs": ["Run", "open_run"],
    },
)
