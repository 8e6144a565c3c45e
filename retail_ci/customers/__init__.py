"""Features, segments, movement and lifetime value."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "features": ["add_scores", "learn_cuts", "rfm_features"],
        "segmentation": ["CustomerSegmentation", "load_model", "save_model"],
        "segment_profiles": ["score_customers"],
        "lifetime_value": ["customer_worth"],
    },
)
