"""Recommender models and their metrics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Recommender"],
        "baselines": ["PersonalRecommender", "PopularityRecommender", "RandomRecommender"],
        "collaborative": ["CollaborativeRecommender"],
        "content": ["ContentRecommender"],
        "hybrid": ["HybridRecommender"],
        "rules": ["Rules"],
    },
)
