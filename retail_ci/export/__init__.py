"""Power BI tables and campaign lists."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "star_schema": ["TABLES", "escape_formulas"],
        "powerbi": ["export_powerbi"],
        "campaigns": ["campaign_lists", "write_campaigns"],
        "ledger": ["draw_wave"],
        "measure": ["measure_campaign"],
        "targeting": ["target_customers"],
    },
)
