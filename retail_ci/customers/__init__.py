"""Features, segments, movement and lifetime value."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "features": ["customer_features"],
        "segmentation": ["CustomerSegmentation"],
        "segment_profiles": ["score_customers"],
        "migration": ["SegmentMigration", "plot_migration", "segment_migration"],
        "lifetime_value": ["customer_lifetime_value"],
    },
)
