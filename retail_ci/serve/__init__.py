"""The serving bundle, its gate, tracking, drift and the API."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bundle": ["Bundle", "activate", "current_bundle", "rollback", "write_bundle"],
        "promotion": ["promote"],
        "drift": ["drift_run", "feature_drift"],
    },
)
