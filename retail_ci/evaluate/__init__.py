"""Evaluation, back-test and tuning."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "offline": ["Evaluation", "plot_metrics"],
        "backtest": ["cut_dates", "plot_backtest"],
        "own_log": ["evaluate_recommenders", "fit_recommender"],
        "tuning": ["tune"],
    },
)
