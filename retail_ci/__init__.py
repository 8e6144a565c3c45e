"""Retail customer intelligence: from a transaction log to segments, offers and a report."""

__version__ = "0.1.0"

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "core.config": ["Config", "load_config"],
        "core.errors": ["ConfigError", "DataError", "RetailError", "RunError"],
        "core.runs": ["open_run"],
        "data.synthetic": ["generate"],
        "data.cleaning": ["clean"],
        "customers.features": ["customer_features"],
        "customers.segmentation": ["CustomerSegmentation"],
        "customers.segment_profiles": ["score_customers"],
        "customers.migration": ["segment_migration"],
        "customers.lifetime_value": ["customer_lifetime_value"],
        "recommend.hybrid": ["HybridRecommender"],
        "recommend.rules": ["Rules"],
        "evaluate.own_log": ["evaluate_recommenders", "fit_recommender"],
        "serve.drift": ["feature_drift"],
        "export.powerbi": ["export_powerbi"],
        "export.campaigns": ["campaign_lists"],
        "report.site": ["build_site"],
    },
)
