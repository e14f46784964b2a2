"""What runs beside the GPU, and on the laptop for `verify` and `evaluate`.

Knows nothing of hosts or screens.  `spec`, `run_directory`, `events`, `manifest`, `atomic` and `errors` import
nothing heavy, so that the command line can use them.
"""
