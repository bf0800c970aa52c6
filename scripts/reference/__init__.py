"""The reference pages, docs/reference/*.md, generated from the code they are about; what `make reference` calls.

Settings from `config.settings` (types, bounds, defaults, docstrings), metrics from what `sinks.metric_families`
exposes, error codes from `core.errors`, the control API from its OpenAPI document. The pages are committed, so that
they can be read in the repository; tests/test_reference.py generates them again and fails where one differs.
"""
