"""Retail customer intelligence: from a transaction log to segments, recommendations and a report."""

__version__ = "0.1.0"

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "core.config": ["Config", "load_config"],
        "core.errors": ["ConfigError", "DataError", "RetailError", "RunError"],
        "core.runs": ["Run", "open_run"],
        "data.cleaning": ["clean"],
        "data.synthetic": ["generate"],
        "customers.features": ["add_scores", "rfm_features"],
        "customers.segmentation": ["CustomerSegmentation"],
        "customers.segment_profiles": ["score_customers"],
        "customers.lifetime_value": ["customer_worth"],
        "customers.migration": ["take_snapshots"],
        "recommend.hybrid": ["HybridRecommender"],
        "recommend.rules": ["Rules"],
        "evaluate.tuning": ["tune"],
        "serve.bundle": ["Bundle"],
        "serve.drift": ["psi"],
        "export.powerbi": ["export_powerbi"],
        "export.campaigns": ["write_campaigns"],
        "report.site": ["build_site"],
    },
)
