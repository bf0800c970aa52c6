"""What a call cost: prices.toml over the per-1K environment variables over genai-prices (DESIGN §9).

The parent compiles all three once into one file (compile.py); workers load it in milliseconds (book.py) and never
import genai-prices, which takes 41 MB.
"""

from __future__ import annotations

from taximeter.pricebook.beforehand import Beforehand
from taximeter.pricebook.book import PriceBook
from taximeter.pricebook.compile import COMPILED_NAME, compile_prices

__all__ = ["COMPILED_NAME", "Beforehand", "PriceBook", "compile_prices"]
