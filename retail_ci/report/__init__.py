"""Charts, pages and the site."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "site": ["build_site", "make_readme"],
        "pages": ["PAGES"],
        "finishing": ["check_site"],
    },
)
